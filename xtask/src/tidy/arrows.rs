//! Checks what docs/architecture.md says about the code: which crate may use which, which crates an agent is built
//! without, and where functions are.

use std::fs;
use std::path::{Path, PathBuf};

use dockerutils_test_support::process;

use super::{Finding, finding};
use crate::error::Error;
use crate::workspace::{Package, Workspace};

/// The workspace's crates that each crate may depend on. A crate that is not here is a command.
const ARROWS: [(&str, &[&str]); 10] = [
    ("build-context", &[]),
    ("dock-client", &[]),
    ("dockerutils-core", &["build-context", "dock-client", "tls-trust"]),
    (
        "dockerutils-stack",
        &["build-context", "dock-client", "dockerutils-core", "registry-client"],
    ),
    ("dock-link", &["dock-client"]),
    ("dock-agent", &["dock-client", "dock-link"]),
    ("dock-registry-aws", &["dock-client"]),
    ("dockerutils-test-support", &[]),
    ("registry-client", &["dock-client", "tls-trust"]),
    ("tls-trust", &[]),
];
/// The crates that a command may depend on.
const OF_COMMANDS: &[&str] = &["dockerutils-core", "dockerutils-stack"];
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

/// The page, and the markers around its tables of names: of functions alone, and of anything that is declared.
const PAGE: &str = "docs/architecture.md";
const TABLES: [(&str, &[&str]); 2] = [
    ("walks", &["fn"]),
    ("places", &["fn", "const", "static", "struct", "enum"]),
];

/// Names in the page's tables that are not declared in the file that it names.
pub(super) fn check_tables(workspace: &Workspace) -> Result<Vec<Finding>, Error> {
    let read = |path: &Path| fs::read_to_string(workspace.root.join(path));
    let page = read(Path::new(PAGE)).map_err(Error::file(PAGE))?;
    let source = |file: &str| read(Path::new(file)).ok();
    let tables = TABLES.iter();
    Ok(tables
        .flat_map(|(table, keywords)| strayed(&page, table, keywords, source))
        .collect())
}

/// Quoted paths of sources in a page that are not there. (`crates/x/{a,b}.rs` stands for two.)
pub(super) fn check_paths(path: &Path, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            // A pattern, such as `crates/NAME/src/lib.rs`, is for every command.
            let is_pattern = quoted.split('/').any(|part| part.starts_with("NAME"));
            if is_pattern || !quoted.starts_with("crates/") || !quoted.ends_with(".rs") {
                continue;
            }
            for missing in alternatives(quoted).iter().filter(|named| !exists(named)) {
                findings.push(finding(path, Some(index + 1), format!("there is no {missing}")));
            }
        }
    }
    findings
}

/// The paths that one with a list in braces stands for.
fn alternatives(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (list, after) = rest.split_once('}')?;
        Some((before, list, after))
    });
    match parts {
        Some((before, list, after)) => list.split(',').map(|name| format!("{before}{name}{after}")).collect(),
        None => vec![path.to_owned()],
    }
}

fn strayed(page: &str, table: &str, keywords: &[&str], source: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut named = 0;
    let mut findings = Vec::new();
    for (number, line) in super::marked(page, table) {
        let mut quoted = line.split('`').skip(1).step_by(2);
        let (Some(name), Some(file), true) = (quoted.next(), quoted.next(), line.starts_with("| `")) else {
            continue;
        };
        named += 1;
        if !source(file).is_some_and(|text| declares(&text, keywords, name)) {
            findings.push(finding(
                PAGE,
                Some(number),
                format!("{file} declares no {} {name:?}", keywords.join(" or ")),
            ));
        }
    }
    if named == 0 {
        findings.push(finding(
            PAGE,
            None,
            format!("nothing is named between <!-- {table} --> and <!-- /{table} -->"),
        ));
    }
    findings
}

/// Whether a source has a keyword before just this name.
fn declares(text: &str, keywords: &[&str], name: &str) -> bool {
    keywords.iter().any(|keyword| {
        let declaration = format!("{keyword} {name}");
        text.match_indices(&declaration).any(|(at, found)| {
            let rest = text.get(at + found.len()..).unwrap_or_default();
            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        })
    })
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
    fn a_name_that_moved_is_found() {
        let page = "| `before` | `a.rs` | x |\n<!-- walks -->\n| function | file |\n| `f` | `a.rs` | x |\n| `g` | `a.rs` | x |\n| `f` | `b.rs` | x |\n<!-- /walks -->\n";
        let found = strayed(page, "walks", &["fn"], |file| {
            (file == "a.rs").then(|| "pub fn f() {}\nfn go() {}".to_owned())
        });
        assert_eq!(
            found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
            [Some(5), Some(6)]
        );
        assert_eq!(strayed("", "walks", &["fn"], |_| None).len(), 1);
        assert!(declares("const A: u8 = 1;", &["fn", "const"], "A"));
        assert!(!declares("const AB: u8 = 1;", &["const"], "A"));
    }

    #[test]
    fn a_path_that_is_not_there_is_found() {
        let text = "see `crates/a/src/{b,c}.rs`, `x.rs` and `crates/a`\n";
        let found = check_paths(Path::new("docs/x.md"), text, |path| path == "crates/a/src/b.rs");
        let found: Vec<String> = found.iter().map(|finding| finding.message.clone()).collect();
        assert_eq!(found, ["there is no crates/a/src/c.rs"]);
    }

    #[test]
    fn what_is_too_heavy_is_found_however_far_down() {
        let tree = "dock-agent v3.0.0 (/x)\nssh2 v0.9.6\nrustls-pki-types v1.0.0\nrustls v0.23.0\nrustls v0.23.0 (*)\n";
        let found = too_heavy("dock-agent", &["bollard", "tonic", "rustls"], tree);
        assert_eq!(found.len(), 1);
    }
}
