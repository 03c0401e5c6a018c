//! Checks what docs/architecture.md says about the code: which crate may use which, which crates an agent is built
//! without, and where functions are.

use std::fs;
use std::path::{Path, PathBuf};

use dockerutils_test_support::process;

use super::{Finding, finding};
use crate::error::Error;
use crate::workspace::{Package, Workspace};

/// The workspace's crates that each crate may depend on. A crate that is not here is a command.
const ARROWS: [(&str, &[&str]); 7] = [
    ("build-context", &[]),
    ("dock-client", &[]),
    ("dockerutils-core", &["build-context", "dock-client"]),
    ("dock-link", &["dock-client"]),
    ("dock-agent", &["dock-client", "dock-link"]),
    ("dock-registry-aws", &["dock-client"]),
    ("dockerutils-test-support", &[]),
];
/// The crates that a command may depend on.
const OF_COMMANDS: &[&str] = &["dockerutils-core"];
/// Crates that these must not depend on, even indirectly: they would be in the memory of one process for each dock, and
/// in the build of each.
const LIGHT: [(&str, &[&str]); 2] = [
    ("dock-agent", &["bollard", "tonic", "rustls"]),
    ("build-context", &["tokio", "bollard"]),
];

/// Dependencies that point up, or are too heavy.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>, Error> {
    let crates = workspace.root.join("crates");
    let below = |package: &&Package| package.directory.starts_with(&crates);
    let mut findings: Vec<Finding> = workspace.packages.iter().filter(below).flat_map(upward).collect();
    for (package, banned) in LIGHT {
        let mut tree = workspace.cargo();
        tree.args(["tree", "--quiet", "--offline", "--package", package]);
        tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        let tree = process::capture_text(&mut tree)?;
        findings.extend(too_heavy(package, banned, &tree));
    }
    Ok(findings)
}

/// The page, and the markers around its tables of functions.
const PAGE: &str = "docs/architecture.md";
const WALKS: &str = "walks";

/// Functions that the page names, but that are not in the file that it names.
pub(super) fn check_walks(workspace: &Workspace) -> Result<Vec<Finding>, Error> {
    let read = |path: &Path| fs::read_to_string(workspace.root.join(path));
    let page = read(Path::new(PAGE)).map_err(Error::file(PAGE))?;
    Ok(strayed(&page, |file| read(Path::new(file)).ok()))
}

fn strayed(page: &str, source: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut named = 0;
    let mut findings = Vec::new();
    for (number, line) in super::marked(page, WALKS) {
        let mut quoted = line.split('`').skip(1).step_by(2);
        let (Some(name), Some(file), true) = (quoted.next(), quoted.next(), line.starts_with("| `")) else {
            continue;
        };
        named += 1;
        let is_there = source(file)
            .is_some_and(|text| text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<")));
        if !is_there {
            findings.push(finding(
                PAGE,
                Some(number),
                format!("there is no function {name:?} in {file}"),
            ));
        }
    }
    if named == 0 {
        findings.push(finding(
            PAGE,
            None,
            format!("no function is named between <!-- {WALKS} --> and <!-- /{WALKS} -->"),
        ));
    }
    findings
}

fn upward(package: &Package) -> Vec<Finding> {
    let allowed = ARROWS
        .iter()
        .find(|(name, _)| *name == package.name)
        .map_or(OF_COMMANDS, |(_, allowed)| *allowed);
    let wrong = package
        .dependencies
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()));
    wrong
        .map(|name| {
            let message = match allowed {
                [] => format!("{} uses {name}: it knows no other crate", package.name),
                _ => format!("{} uses {name}: it knows {} alone", package.name, allowed.join(" and ")),
            };
            finding(package.directory.join("Cargo.toml"), None, message)
        })
        .collect()
}

/// `tree` is a line for each crate, which begins with its name.
fn too_heavy(package: &str, banned: &[&str], tree: &str) -> Vec<Finding> {
    let crates = tree.lines().filter_map(|line| line.split(' ').next());
    let mut heavy: Vec<&str> = crates.filter(|name| banned.contains(name)).collect();
    heavy.sort_unstable();
    heavy.dedup();
    heavy
        .into_iter()
        .map(|name| {
            let message =
                format!("{package} is built with {name}: cargo tree -p {package} -i {name} tells by which way");
            finding(PathBuf::from("Cargo.lock"), None, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            directory: Path::new("crates").join(name),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
            dev_dependencies: vec!["dockerutils-test-support".to_owned()],
            is_command: false,
            is_staged: false,
            has_examples: false,
        }
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        assert!(upward(&package("dockerutils-core", &["dock-client", "build-context"])).is_empty());
        assert!(upward(&package("build-image", &["dockerutils-core"])).is_empty());
        for (name, dependency) in [
            ("dock-client", "dockerutils-core"),
            ("build-context", "dock-client"),
            ("dock-agent", "dockerutils-core"),
            ("build-image", "dock-client"),
        ] {
            assert_eq!(upward(&package(name, &[dependency])).len(), 1, "{name} {dependency}");
        }
    }

    #[test]
    fn a_function_that_moved_is_found() {
        let page = "| `before` | `a.rs` | x |\n<!-- walks -->\n| function | file |\n| `f` | `a.rs` | x |\n| `g` | `a.rs` | x |\n| `f` | `b.rs` | x |\n<!-- /walks -->\n";
        let found = strayed(page, |file| (file == "a.rs").then(|| "pub fn f() {}".to_owned()));
        assert_eq!(
            found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
            [Some(5), Some(6)]
        );
        assert_eq!(strayed("", |_| None).len(), 1);
    }

    #[test]
    fn what_is_too_heavy_is_found_however_far_down() {
        let tree = "dock-agent v3.0.0 (/x)\nssh2 v0.9.6\nrustls-pki-types v1.0.0\nrustls v0.23.0\nrustls v0.23.0 (*)\n";
        let found = too_heavy("dock-agent", &["bollard", "tonic", "rustls"], tree);
        assert_eq!(found.len(), 1);
    }
}
