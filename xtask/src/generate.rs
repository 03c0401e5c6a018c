//! `cargo xtask gen`: the reference pages, the README's table of commands, and the picture of the architecture.

mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use dockerutils_test_support::process::announce;

use crate::error::Error;
use crate::install::SHIM_HELPER;
use crate::workspace::{Profile, Workspace, describe};

#[derive(Parser)]
pub(crate) struct Args {
    /// Write nothing; fail if a page is out of date
    #[arg(long)]
    check: bool,
}

/// Where the README's table of commands begins and ends.
const MARKERS: (&str, &str) = ("<!-- commands -->", "<!-- /commands -->");

/// Where the rules of `build-image --check` begin and end in docs/checks.md.
const RULES: (&str, &str) = ("<!-- rules -->", "<!-- /rules -->");

/// The first line of each page.
const NOTICE: &str = "<!-- Made by `cargo xtask gen` from the command itself: edit its Args instead. -->\n";

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.check {
        return check();
    }
    let workspace = Workspace::load()?;
    let pages = pages(&workspace)?;
    for path in drift(&workspace, &pages)? {
        match pages.get(&path) {
            Some(text) => {
                let directory = path.parent().unwrap_or(&workspace.root);
                fs::create_dir_all(directory).map_err(Error::file(directory))?;
                fs::write(&path, text).map_err(Error::file(&path))?;
                announce(format_args!("wrote {}", shown(&workspace, &path)));
            }
            None => {
                fs::remove_file(&path).map_err(Error::file(&path))?;
                announce(format_args!("removed {}", shown(&workspace, &path)));
            }
        }
    }
    Ok(())
}

/// Fails if a file is out of date, and names it.
pub(crate) fn check() -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let drift = drift(&workspace, &pages(&workspace)?)?;
    if drift.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = drift.iter().map(|path| shown(&workspace, path)).collect();
    Err(Error::Failed(format!(
        "not as `cargo xtask gen` makes it: {}\n\nhint: cargo xtask gen",
        names.join(", ")
    )))
}

/// Every generated file, with the contents that it should have.
fn pages(workspace: &Workspace) -> Result<BTreeMap<PathBuf, String>, Error> {
    let built = workspace.build(Profile::Debug)?;
    let reference = reference(workspace);
    let mut pages = BTreeMap::new();
    let helper = workspace.programs.iter().filter(|program| program.name == SHIM_HELPER);
    for command in workspace.commands().chain(helper) {
        let page = describe(&built, command, "markdown")?;
        let page = String::from_utf8_lossy(&page);
        // clap leaves spaces on the empty lines of long help.
        let lines: Vec<&str> = page.trim_end().lines().map(str::trim_end).collect();
        let page = format!("{NOTICE}{}\n", lines.join("\n"));
        pages.insert(reference.join(format!("{}.md", command.name)), page);
    }
    let shim = workspace.root.join("crates/dock/shim/dock.md");
    let page = fs::read_to_string(&shim).map_err(Error::file(&shim))?;
    let notice = "<!-- Made by `cargo xtask gen` from crates/dock/shim/dock.md: edit that instead. -->\n";
    pages.insert(reference.join("dock.md"), format!("{notice}{page}"));
    let index = format!("{NOTICE}# Reference\n\n{}", table(workspace, ""));
    pages.insert(reference.join("README.md"), index);
    let readme = workspace.root.join("README.md");
    let text = fs::read_to_string(&readme).map_err(Error::file(&readme))?;
    let text = between(&text, MARKERS, &table(workspace, "docs/reference/")).ok_or_else(|| {
        Error::Failed(format!(
            "README.md has no {} ... {} for the table of commands",
            MARKERS.0, MARKERS.1
        ))
    })?;
    pages.insert(readme, text);
    let checks = workspace.root.join("docs/checks.md");
    let text = fs::read_to_string(&checks).map_err(Error::file(&checks))?;
    let builder = workspace.commands().find(|command| command.name == "build-image");
    let builder = builder.ok_or_else(|| Error::Failed("no command build-image".to_owned()))?;
    let rules = String::from_utf8_lossy(&describe(&built, builder, "checks")?).into_owned();
    let text = between(&text, RULES, &rules).ok_or_else(|| {
        Error::Failed(format!(
            "docs/checks.md has no {} ... {} for the rules",
            RULES.0, RULES.1
        ))
    })?;
    pages.insert(checks, text);
    let drawn = workspace.root.join("docs/architecture/parts.txt");
    let text = fs::read_to_string(&drawn).map_err(Error::file(&drawn))?;
    let picture = picture::draw(&text).map_err(|wrong| Error::Failed(format!("{}: {wrong}", drawn.display())))?;
    pages.insert(drawn.with_extension("svg"), picture);
    Ok(pages)
}

/// The files that are out of date, and those of commands that no longer exist.
fn drift(workspace: &Workspace, pages: &BTreeMap<PathBuf, String>) -> Result<BTreeSet<PathBuf>, Error> {
    let mut drift = BTreeSet::new();
    for (path, text) in pages {
        match fs::read_to_string(path) {
            Ok(found) if found == *text => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file(path)(error));
            }
            _ => {
                drift.insert(path.clone());
            }
        }
    }
    for entry in fs::read_dir(reference(workspace)).into_iter().flatten() {
        let path = entry.map_err(Error::file(reference(workspace)))?.path();
        if !pages.contains_key(&path) {
            drift.insert(path);
        }
    }
    Ok(drift)
}

fn table(workspace: &Workspace, directory: &str) -> String {
    let mut table = "| command | what it does |\n|---|---|\n".to_owned();
    for command in workspace.commands() {
        let name = &command.name;
        let description = command.description.as_deref().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(table, "| [`{name}`]({directory}{name}.md) | {description} |");
    }
    for (name, page, description) in SHELL_PAGES {
        let _ = writeln!(table, "| [`{name}`]({directory}{page}.md) | {description} |");
    }
    table
}

/// What is not a program, or is seldom typed, but has a page.
const SHELL_PAGES: [(&str, &str, &str); 2] = [
    (
        "source dock",
        "dock",
        "Dock a shell: what speaks Docker in it works there; `castoff` goes back",
    ),
    (
        "dock-env",
        "dock-env",
        "Print what a docked shell sets: the helper of `source dock`",
    ),
];

/// `text` with `made` in the place of what is between the markers; `None` if there are no markers.
fn between(text: &str, (begin, end): (&str, &str), made: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{made}{end}{after}"))
}

fn reference(workspace: &Workspace) -> PathBuf {
    workspace.root.join("docs/reference")
}

fn shown(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(&workspace.root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_old_one() {
        let readme = "# x\n<!-- commands -->\nold\n<!-- /commands -->\nrest\n";
        let new = between(readme, MARKERS, "| new |\n").unwrap();
        assert_eq!(new, "# x\n<!-- commands -->\n| new |\n<!-- /commands -->\nrest\n");
        assert_eq!(between(&new, MARKERS, "| new |\n").unwrap(), new);
        assert_eq!(between("# x\n", MARKERS, ""), None);
    }
}
