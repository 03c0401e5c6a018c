//! A type's name should be clear without its module: at most two modules may declare types of the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, files, finding};
use crate::error::Error;
use crate::workspace::Workspace;

/// The most modules that may declare a type of the same name: a module's own name may say the rest.
const MOST: usize = 2;

/// Names that every module of some kind declares, and why.
const SHARED: [(&str, &str); 2] = [
    ("Args", "the arguments of each command"),
    ("Error", "the error of each crate"),
];

/// The keywords that declare a type.
const KEYWORDS: [&str; 5] = ["struct", "enum", "union", "trait", "type"];

/// The modules that declare a type of each name: its file, and the line.
type Declarations = BTreeMap<String, Vec<(PathBuf, usize)>>;

/// Types whose names are declared by too many modules.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>, Error> {
    let mut declarations = Declarations::new();
    for path in files(workspace)?.into_iter().filter(|path| is_checked(path)) {
        let text = fs::read_to_string(workspace.root.join(&path)).map_err(Error::file(&path))?;
        add(&mut declarations, &path, &text);
    }
    Ok(repeated(&declarations))
}

/// Code that is neither a test nor a fuzz target: `src` of a crate, of xtask and of what the tests share.
fn is_checked(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let is_source = match parts.next() {
        Some("crates") => parts.nth(1) == Some("src"),
        Some("xtask" | "tests") => parts.next() == Some("src"),
        _ => false,
    };
    is_source && path.extension().is_some_and(|extension| extension == "rs")
}

fn add(declarations: &mut Declarations, path: &Path, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if let Some((keyword, name)) = declared(line)
            && !(keyword == "type" && is_associated(lines.get(..index).unwrap_or_default(), line))
        {
            let places = declarations.entry(name.to_owned()).or_default();
            places.push((path.to_owned(), index + 1));
        }
    }
}

/// The type that a line declares, and the keyword.
fn declared(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let (word, rest) = line.strip_prefix("unsafe ").unwrap_or(line).split_once(' ')?;
    let keyword = KEYWORDS.into_iter().find(|keyword| *keyword == word)?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = rest.get(..end.unwrap_or(rest.len()))?;
    name.starts_with(|c: char| c.is_ascii_uppercase())
        .then_some((keyword, name))
}

/// Whether a `type` is that of an `impl` or of a trait: the lines above it are indented as `rustfmt` does.
fn is_associated(above: &[&str], line: &str) -> bool {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut depth = indentation(line);
    for line in above.iter().rev().filter(|line| !line.trim().is_empty()) {
        let text = line.trim_start();
        // The brace of an `impl` with a `where` is on a line of its own.
        let is_rest = ["{", "where", ")", ">"].iter().any(|begin| text.starts_with(begin));
        if indentation(line) < depth {
            if !is_rest {
                let words: Vec<&str> = text.split([' ', '<']).collect();
                return words
                    .iter()
                    .find(|word| !word.starts_with("pub") && **word != "unsafe")
                    .is_some_and(|word| matches!(*word, "impl" | "trait"));
            }
            depth = indentation(line) + 1;
        }
    }
    false
}

fn repeated(declarations: &Declarations) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, places) in declarations {
        let modules: BTreeSet<&PathBuf> = places.iter().map(|(path, _)| path).collect();
        if modules.len() <= MOST || SHARED.iter().any(|(shared, _)| shared == name) {
            continue;
        }
        for (path, line) in places {
            let message = format!(
                "{} modules declare a type named {name:?}: let its name say of what",
                modules.len()
            );
            findings.push(finding(path, Some(*line), message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let mut declarations = Declarations::new();
        add(&mut declarations, Path::new("a.rs"), text);
        declarations.into_keys().collect()
    }

    #[test]
    fn every_way_to_declare_a_type_is_seen() {
        let text = "struct Unit;\npub enum Kind<T> {\n    pub(in crate::a) union Bits {\npub(super) unsafe trait Shell: Send {\ntype Map = u8;\n";
        assert_eq!(names(text), ["Bits", "Kind", "Map", "Shell", "Unit"]);
        let text = "// struct Said;\nlet struct_of = 1;\nfn type_of() {}\nstruct_of Entry\npublic struct No;\n";
        assert!(names(text).is_empty());
    }

    #[test]
    fn the_types_of_an_impl_are_the_traits() {
        let plain = "impl Iterator for Walk {\n    type Item = u8;\n\n    fn next() {}\n}\n";
        let bound = "impl<T> Service for Log<T>\nwhere\n    T: Send,\n{\n    type Response = u8;\n}\n";
        let second = "unsafe impl Get for Log {\n    fn get() {\n        1\n    }\n    type Kept = u8;\n}\n";
        let own = "pub trait Shell {\n    type Input: Send;\n}\n";
        assert!(names(&[plain, bound, second].concat()).is_empty());
        assert_eq!(names(own), ["Shell"]);
        let local = "fn run(\n    a: u8,\n) {\n    type Row = u8;\n}\nmod tests {\n    type Rows = u8;\n}\n";
        assert_eq!(names(local), ["Row", "Rows"]);
    }

    #[test]
    fn a_name_of_three_modules_is_found_in_each() {
        let mut declarations = Declarations::new();
        for path in ["a.rs", "b.rs"] {
            add(&mut declarations, Path::new(path), "\nstruct Place;\nstruct Args;\n");
        }
        // Twice in a module is no more than once.
        add(&mut declarations, Path::new("b.rs"), "struct Place;\n");
        assert!(repeated(&declarations).is_empty());
        add(&mut declarations, Path::new("c.rs"), "enum Place {}\nenum Args {}\n");
        let found: Vec<String> = repeated(&declarations).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(
            found.first().map(String::as_str),
            Some("a.rs:2: 3 modules declare a type named \"Place\": let its name say of what")
        );
        assert!(found.last().is_some_and(|last| last.starts_with("c.rs:1: ")));
    }

    #[test]
    fn sources_alone_are_checked() {
        for path in ["crates/core/src/a.rs", "xtask/src/main.rs", "tests/src/site.rs"] {
            assert!(is_checked(Path::new(path)), "{path}");
        }
        for path in [
            "crates/core/tests/a.rs",
            "tests/real/a.rs",
            "crates/core/src/a.md",
            "src/a.rs",
        ] {
            assert!(!is_checked(Path::new(path)), "{path}");
        }
    }
}
