//! `cargo xtask test --changed`: what a change can affect.
//!
//! A package is affected when a file of it was changed, or one that it depends on is affected. The tests of kind real run
//! our programs, which cargo does not know: a change of a library that programs share affects all of them, a change of one
//! command the modules that name it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use dockerutils_test_support::process;

use crate::error::Error;
use crate::workspace::{Package, Workspace};

/// The package with the tests of kind real.
pub(super) const REAL_TESTS: &str = "dockerutils-tests";
/// Where they are, below the workspace's root.
const REAL_MODULES: &str = "tests/real";
/// The module that runs the command lines of the documentation.
const DOCS: &str = "docs";
/// Files that every package is built with.
const EVERYWHERE: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "clippy.toml",
    ".cargo/",
    ".config/",
];

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    Changed(Affected),
}

/// What a change affects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Affected {
    /// Packages whose results can change.
    packages: BTreeSet<String>,
    /// The modules of the tests of kind real; `None` is all of them.
    real: Option<BTreeSet<String>>,
    /// Whether what `deny` looks at was changed.
    dependencies: bool,
    /// Whether what is generated, or is generated from, was changed.
    generated: bool,
}

impl Selection {
    /// The files that differ from `since`, or where that is empty, from where this branch left `main`; files that git does
    /// not know yet are among them.
    pub(super) fn changed(workspace: &Workspace, since: &str) -> Result<Self, Error> {
        let git = |words: &[&str]| -> Result<String, Error> {
            Ok(process::capture_text(
                Command::new("git").current_dir(&workspace.root).args(words),
            )?)
        };
        let since = match since {
            "" => git(&["merge-base", "HEAD", "main"])?,
            since => since.to_owned(),
        };
        let mut files = git(&["diff", "--name-only", "--no-renames", &since, "--"])?;
        files.push('\n');
        files += &git(&["ls-files", "--others", "--exclude-standard"])?;
        let files: BTreeSet<&str> = files.lines().filter(|line| !line.is_empty()).collect();
        let modules = modules(&workspace.root.join(REAL_MODULES))?;
        Ok(affected(&workspace.root, &workspace.packages, &modules, &files))
    }

    /// A description for the user.
    pub(super) fn words(&self) -> Option<String> {
        let Self::Changed(affected) = self else {
            return None;
        };
        let join = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let real = match &affected.real {
            None => "all".to_owned(),
            Some(modules) if modules.is_empty() => "none".to_owned(),
            Some(modules) => join(modules),
        };
        let packages = match affected.packages.is_empty() {
            true => "none".to_owned(),
            false => join(&affected.packages),
        };
        Some(format!(
            "affected packages: {packages}\naffected modules of real tests: {real}"
        ))
    }

    /// Whether a stage has anything to do.
    pub(super) fn has_stage(&self, name: &str, workspace: &Workspace) -> bool {
        let Self::Changed(affected) = self else {
            return true;
        };
        match name {
            "fmt" | "tidy" => true,
            "deny" => affected.dependencies,
            "gen" => affected.generated,
            "clippy" | "unit" => affected.everyday(workspace).next().is_some(),
            "doc" => !self.with_examples(workspace).is_empty(),
            "real" => affected.real.as_ref().is_none_or(|modules| !modules.is_empty()),
            stage => workspace
                .packages_of(stage)
                .any(|package| affected.packages.contains(package)),
        }
    }

    /// What chooses the packages of everyday work, for cargo.
    pub(super) fn everyday(&self, workspace: &Workspace) -> Vec<String> {
        match self {
            Self::All => workspace.everyday().map(str::to_owned).collect(),
            Self::Changed(affected) => {
                let packages = affected.everyday(workspace);
                packages
                    .flat_map(|name| ["--package".to_owned(), name.to_owned()])
                    .collect()
            }
        }
    }

    /// What chooses the packages of everyday work whose documentation has examples, for cargo.
    pub(super) fn with_examples(&self, workspace: &Workspace) -> Vec<String> {
        let packages = workspace.packages.iter().filter(|package| {
            let is_chosen = match self {
                Self::All => true,
                Self::Changed(affected) => affected.packages.contains(&package.name),
            };
            is_chosen && package.has_examples && !package.is_staged
        });
        packages
            .flat_map(|package| ["--package".to_owned(), package.name.clone()])
            .collect()
    }

    /// What chooses the tests of kind real, for nextest.
    pub(super) fn real_filter(&self) -> Option<String> {
        let Self::Changed(Affected {
            real: Some(modules), ..
        }) = self
        else {
            return None;
        };
        Some(
            modules
                .iter()
                .map(|module| format!("test(/^{module}::/)"))
                .collect::<Vec<_>>()
                .join(" + "),
        )
    }
}

impl Affected {
    fn everyday<'a>(&'a self, workspace: &'a Workspace) -> impl Iterator<Item = &'a str> {
        let packages = self.packages.iter().map(String::as_str);
        packages.filter(|name| !workspace.is_staged(name))
    }
}

/// A module of the tests of kind real, with all it says.
struct Module {
    name: String,
    text: String,
}

fn modules(directory: &Path) -> Result<Vec<Module>, Error> {
    let mut modules: Vec<Module> = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::file(directory))? {
        let path = entry.map_err(Error::file(directory))?.path();
        let is_module = path.extension().is_some_and(|extension| extension == "rs");
        let Some(name) = path.file_stem().filter(|name| is_module && *name != "main") else {
            continue;
        };
        let mut text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        let below = path.with_extension("");
        for entry in fs::read_dir(&below).into_iter().flatten().flatten() {
            // A binary file names no command.
            text += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
        modules.push(Module {
            name: name.to_string_lossy().into_owned(),
            text,
        });
    }
    Ok(modules)
}

/// What changes of these files affect, their paths below the workspace's root.
fn affected(root: &Path, packages: &[Package], modules: &[Module], files: &BTreeSet<&str>) -> Selection {
    let is_of = |file: &str, places: &[&str]| {
        places
            .iter()
            .any(|place| file == *place || place.ends_with('/') && file.starts_with(place))
    };
    if files.iter().any(|file| is_of(file, &EVERYWHERE)) {
        return Selection::All;
    }
    // The longest directory that holds the file: packages may lie in one another.
    let package_of = |file: &str| {
        let holding = packages
            .iter()
            .filter(|package| root.join(file).starts_with(&package.directory));
        holding.max_by_key(|package| package.directory.as_os_str().len())
    };
    let names_of = |files: &mut dyn Iterator<Item = &&str>| -> BTreeSet<&str> {
        let packages = files.filter_map(|file| package_of(file));
        packages.map(|package| package.name.as_str()).collect()
    };
    // No package depends on another one's tests.
    let (tests, others): (Vec<&str>, Vec<&str>) = files.iter().partition(|file| is_test(file));
    let changed = names_of(&mut others.iter());
    let changed_tests = names_of(&mut tests.iter());
    // First by the packages' own dependencies; tests depend on more (`dev-dependencies`), but nothing depends on tests.
    let mut seen = changed.clone();
    loop {
        let more = packages
            .iter()
            .filter(|package| package.dependencies.iter().any(|name| seen.contains(name.as_str())));
        let before = seen.len();
        seen.extend(more.map(|package| package.name.as_str()).collect::<Vec<_>>());
        if seen.len() == before {
            break;
        }
    }
    let tested = packages.iter().filter(|package| {
        let name = package.name.as_str();
        seen.contains(name)
            || changed_tests.contains(name)
            || package.dev_dependencies.iter().any(|name| seen.contains(name.as_str()))
    });
    let tested: BTreeSet<String> = tested.map(|package| package.name.clone()).collect();
    let is_page = |file: &&&str| file.ends_with(".md");
    let commands = || packages.iter().filter(|package| package.is_command);
    let generated = commands().any(|command| seen.contains(command.name.as_str()))
        || changed.contains("xtask")
        || files.iter().any(|file| is_page(&file));
    let mut real = Some(BTreeSet::new());
    if let Some(real) = &mut real {
        if files.iter().any(|file| is_page(&file)) {
            real.insert(DOCS.to_owned());
        }
        for module in modules {
            let own = [
                format!("{REAL_MODULES}/{}.rs", module.name),
                format!("{REAL_MODULES}/{}/", module.name),
            ];
            let named = commands().any(|command| {
                changed.contains(command.name.as_str())
                    && (module.name == DOCS
                        || module.text.contains(&command.name)
                        // As the tests' own functions are called.
                        || module.text.contains(&command.name.replace('-', "_")))
            });
            if named
                || files
                    .iter()
                    .any(|file| is_of(file, &own.each_ref().map(String::as_str)))
            {
                real.insert(module.name.clone());
            }
        }
    }
    // A library, or what the tests share.
    let shared = |file: &&str| {
        package_of(file).is_some_and(|package| match package.name.as_str() {
            REAL_TESTS => !is_test(file) || file.ends_with("/main.rs"),
            "xtask" => false,
            _ => !is_test(file) && !package.is_command && seen_by_others(packages, package),
        })
    };
    if files.iter().any(shared) {
        real = None;
    }
    Selection::Changed(Affected {
        packages: tested,
        real,
        dependencies: files
            .iter()
            .any(|file| *file == "deny.toml" || file.ends_with("Cargo.toml")),
        generated,
    })
}

/// Whether a file belongs to the tests of its package alone.
fn is_test(file: &str) -> bool {
    file.starts_with(REAL_MODULES) || file.starts_with("crates/") && file.split('/').nth(2) == Some("tests")
}

/// Whether any other package depends on it, or real tests start its program: all but those with a stage of their own.
fn seen_by_others(packages: &[Package], package: &Package) -> bool {
    !package.is_staged || packages.iter().any(|other| other.dependencies.contains(&package.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, directory: &str, dependencies: &[&str], dev_dependencies: &[&str]) -> Package {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Package {
            name: name.to_owned(),
            directory: Path::new("/w").join(directory),
            dependencies: names(dependencies),
            dev_dependencies: names(dev_dependencies),
            is_command: ["build-image", "genversion"].contains(&name),
            is_staged: name == "dock-registry-aws",
            has_examples: false,
        }
    }

    fn of(files: &[&str]) -> Selection {
        let packages = [
            package("dockerutils-core", "crates/core", &[], &["dockerutils-test-support"]),
            package("dockerutils-test-support", "crates/test-support", &[], &[]),
            package(
                "build-image",
                "crates/build-image",
                &["dockerutils-core"],
                &["dockerutils-test-support"],
            ),
            package(
                "genversion",
                "crates/genversion",
                &["dockerutils-core"],
                &["dockerutils-test-support"],
            ),
            package(
                "dock-registry-aws",
                "crates/dock-registry-aws",
                &["dockerutils-core"],
                &[],
            ),
            package(
                "dockerutils-tests",
                "tests",
                &["dockerutils-test-support"],
                &["dockerutils-core"],
            ),
            package("xtask", "xtask", &["dockerutils-test-support"], &[]),
        ];
        let module = |name: &str, text: &str| Module {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        let modules = [
            module("build_all", "site.build_image(&sandbox)"),
            module("versioneer", "binary(\"genversion\")"),
            module("docs", ""),
        ];
        affected(Path::new("/w"), &packages, &modules, &files.iter().copied().collect())
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_library_affects_who_depends_on_it_and_all_real_tests() {
        let Selection::Changed(core) = of(&["crates/core/src/lib.rs"]) else {
            panic!()
        };
        assert_eq!(
            core.packages,
            names(&[
                "build-image",
                "dock-registry-aws",
                "dockerutils-core",
                "dockerutils-tests",
                "genversion"
            ])
        );
        assert_eq!(core.real, None);
        assert!(core.generated && !core.dependencies);
        // Whose tests use it, and no further.
        let Selection::Changed(support) = of(&["crates/test-support/src/lab/mod.rs"]) else {
            panic!()
        };
        assert!(support.packages.contains("build-image") && !support.packages.contains("dock-registry-aws"));
        assert_eq!(support.real, None);
    }

    #[test]
    fn a_command_affects_itself_and_the_modules_that_name_it() {
        let Selection::Changed(command) = of(&["crates/build-image/src/lib.rs"]) else {
            panic!()
        };
        assert_eq!(command.packages, names(&["build-image"]));
        assert_eq!(command.real, Some(names(&["build_all", "docs"])));
        let Selection::Changed(command) = of(&["crates/genversion/Cargo.toml"]) else {
            panic!()
        };
        assert_eq!(command.real, Some(names(&["docs", "versioneer"])));
        assert!(command.dependencies);
    }

    #[test]
    fn a_test_affects_itself_and_a_page_the_documentation() {
        let Selection::Changed(test) = of(&["tests/real/build_all.rs"]) else {
            panic!()
        };
        assert_eq!(
            (test.packages, test.real),
            (names(&["dockerutils-tests"]), Some(names(&["build_all"])))
        );
        let Selection::Changed(test) = of(&["crates/core/tests/shlex.rs"]) else {
            panic!()
        };
        assert_eq!(
            (test.packages, test.real),
            (names(&["dockerutils-core"]), Some(names(&[])))
        );
        let Selection::Changed(page) = of(&["docs/concepts.md"]) else {
            panic!()
        };
        assert_eq!((page.packages, page.real), (names(&[]), Some(names(&["docs"]))));
        let Selection::Changed(chore) = of(&["xtask/src/main.rs"]) else {
            panic!()
        };
        assert_eq!((chore.packages, chore.real), (names(&["xtask"]), Some(names(&[]))));
        let Selection::Changed(shared) = of(&["tests/src/site.rs"]) else {
            panic!()
        };
        assert_eq!(shared.real, None);
        let Selection::Changed(staged) = of(&["crates/dock-registry-aws/src/lib.rs"]) else {
            panic!()
        };
        assert_eq!(
            (staged.packages, staged.real),
            (names(&["dock-registry-aws"]), Some(names(&[])))
        );
    }

    #[test]
    fn what_every_package_is_built_with_affects_all() {
        assert_eq!(of(&["Cargo.lock"]), Selection::All);
        assert_eq!(of(&[".config/nextest.toml"]), Selection::All);
    }
}
