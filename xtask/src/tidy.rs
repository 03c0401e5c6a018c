//! `cargo xtask tidy`: the conventions of the code that the compiler does not check.

mod arrows;
mod documented;
mod type_names;
mod words;

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockerutils_test_support::process::{self, announce};

use crate::error::Error;
use crate::workspace::{Program, Workspace};

/// The most lines of a command's library: beyond that, its logic belongs in `core::ops`.
const COMMAND_LINES: usize = 250;

/// The most lines of the README: a longer one is not read.
const README_LINES: usize = 300;

/// Module names that do not describe the contents.
const VAGUE: [&str; 5] = ["utils", "util", "helpers", "common", "misc"];

/// The keys that the manifest of a command inherits from the workspace.
const SHARED_FIELDS: [&str; 6] = ["version", "edition", "rust-version", "license", "repository", "publish"];

/// What a line of Rust must not contain, why, and where it is allowed.
struct Ban {
    text: &'static str,
    instead: &'static str,
    applies: fn(&Path) -> bool,
}

const BANS: [Ban; 9] = [
    Ban {
        text: concat!("#[", "ignore"),
        instead: "a test that does not run is none: run it or remove it",
        applies: |_| true,
    },
    Ban {
        text: concat!("TO", "DO"),
        instead: "do it, or write an issue",
        applies: |_| true,
    },
    Ban {
        text: concat!("FIX", "ME"),
        instead: "mend it, or write an issue",
        applies: |_| true,
    },
    Ban {
        text: concat!("process::", "exit("),
        instead: "return an ExitStatus: only the core's cli ends a process",
        applies: |path| is_source(path) && !path.starts_with("crates/core/src/cli") && path != "crates/core/src/cli.rs",
    },
    Ban {
        text: concat!("println", "!("),
        instead: "use the Printer: it knows --quiet, --json and closed pipes",
        applies: is_source,
    },
    Ban {
        text: concat!("use ", "bollard"),
        instead: "the engine's client stays in the core",
        applies: |path| !path.starts_with("crates/core"),
    },
    Ban {
        text: concat!("FROM ", "busybox"),
        instead: "use the lab's base image: a machine's engine may have another of this name",
        applies: |path| path.starts_with("tests") || path.starts_with("xtask") || is_aws_test(path),
    },
    Ban {
        text: concat!("engine(\"", "local"),
        instead: "use a dock (\"20\"): the machine's own engine is for what sees this machine's files and ports",
        applies: |path| !NEAR.iter().any(|near| path == Path::new(near)),
    },
    Ban {
        text: concat!("Command::new(\"", "ssh\")"),
        instead: "use SshHome: OpenSSH takes the home of the password database, whatever HOME says",
        // The lab's own test says `-F none`.
        applies: |path| !is_source(path) && path != "tests/real/lab.rs",
    },
];

/// The tests and benches that need an engine which sees this machine's files and ports.
const NEAR: [&str; 13] = [
    "tests/real/browser.rs",
    "tests/real/build_stack.rs",
    "tests/real/docker_notebook.rs",
    "tests/real/docs.rs",
    "tests/real/notebook_faults.rs",
    "tests/real/notebook_images.rs",
    "tests/real/notebook_start_script.rs",
    "tests/real/publish.rs",
    "tests/real/run_api_socket.rs",
    "tests/real/stack_docks.rs",
    "tests/real/test_stack.rs",
    "xtask/src/bench/notebook.rs",
    "xtask/src/bench/stack.rs",
];

fn is_aws_test(path: &Path) -> bool {
    path.starts_with("crates/dock-registry-aws/tests")
}

/// A violation of a convention.
struct Finding {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

pub(crate) fn run() -> Result<(), Error> {
    let workspace = Workspace::load()?;
    let mut findings = Vec::new();
    for path in files(&workspace)? {
        findings.extend(check_name(&path));
        let text = || fs::read_to_string(workspace.root.join(&path)).map_err(Error::file(&path));
        if path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(check_source(&path, &text()?));
        }
        if words::is_checked(&path) {
            findings.extend(words::check(&path, &text()?));
        }
        if path.extension().is_some_and(|extension| extension == "md") {
            let exists = |named: &str| workspace.root.join(named).is_file();
            findings.extend(arrows::check_paths(&path, &text()?, exists));
        }
        if path == Path::new("README.md") {
            let lines = text()?.lines().count();
            findings.extend(limit(&path, lines, README_LINES));
        }
    }
    findings.extend(check_named_tests(&workspace)?);
    findings.extend(arrows::check(&workspace)?);
    findings.extend(arrows::check_tables(&workspace)?);
    findings.extend(type_names::check(&workspace)?);
    for command in workspace.commands() {
        findings.extend(check_command(&workspace, command)?);
    }
    for finding in &findings {
        announce(finding);
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Error::Failed(format!("tidy: {count} not as agreed in docs/"))),
    }
}

/// The pages with a table that names tests, and the name of the markers around it.
const TABLES: [(&str, &str); 2] = [("docs/security.md", "strangers"), ("docs/concepts.md", "promises")];

/// Checks that every test that a page's table names exists.
fn check_named_tests(workspace: &Workspace) -> Result<Vec<Finding>, Error> {
    let read = |path: &Path| fs::read_to_string(workspace.root.join(path)).map_err(Error::file(path));
    let mut sources = String::new();
    for path in files(workspace)? {
        if path.extension().is_some_and(|extension| extension == "rs") {
            sources += &read(&path)?;
        }
    }
    let mut findings = Vec::new();
    for (page, table) in TABLES {
        findings.extend(named_tests(page, table, &read(Path::new(page))?, &sources));
    }
    Ok(findings)
}

/// The lines of a page between `<!-- NAME -->` and `<!-- /NAME -->`, each with its number, from 1.
fn marked<'a>(page: &'a str, name: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let lines = page.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .skip_while(move |(_, line)| *line != begin)
        .skip(1)
        .take_while(move |(_, line)| *line != end)
}

fn named_tests(page: &str, table: &str, text: &str, sources: &str) -> Vec<Finding> {
    let mut named = 0;
    let mut findings = Vec::new();
    for (number, line) in marked(text, table) {
        // The last cell: text in backquotes is the name of a test.
        let cell = line
            .trim_end_matches([' ', '|'])
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        for name in cell.split('`').skip(1).step_by(2) {
            named += 1;
            if !sources.contains(&format!("fn {name}(")) {
                findings.push(finding(page, Some(number), format!("there is no test {name:?}")));
            }
        }
    }
    if named == 0 {
        findings.push(finding(
            page,
            None,
            format!("no test is named between <!-- {table} --> and <!-- /{table} -->"),
        ));
    }
    findings
}

/// All files that git tracks or would add; ignored files are not checked.
fn files(workspace: &Workspace) -> Result<Vec<PathBuf>, Error> {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::capture(&mut git)?;
    let paths = listed
        .split(|byte| *byte == 0)
        .map(|path| PathBuf::from(&*String::from_utf8_lossy(path)));
    // A file that was deleted and not yet committed is still listed.
    Ok(paths.filter(|path| workspace.root.join(path).is_file()).collect())
}

fn check_name(path: &Path) -> Option<Finding> {
    let names = path.iter().filter_map(|name| Path::new(name).file_stem()?.to_str());
    let vague = names.into_iter().find(|name| VAGUE.contains(name))?;
    Some(finding(path, None, format!("{vague:?} does not say what is inside")))
}

fn check_source(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_source(path) && !path.starts_with("crates/test-support") {
        findings.extend(unquoted_hints(path, text));
    }
    findings.extend(documented::check(path, text));
    // Attributes and a shebang may stand before it.
    let first = text.lines().find(|line| !line.starts_with("#!"));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        findings.push(finding(path, Some(1), "begin with `//!`: what the module is for"));
    }
    for (index, line) in text.lines().enumerate() {
        for ban in &BANS {
            if line.contains(ban.text) && (ban.applies)(path) {
                findings.push(finding(
                    path,
                    Some(index + 1),
                    format!("{:?}: {}", ban.text, ban.instead),
                ));
            }
        }
    }
    findings
}

/// Hints that contain names, and are not made by `hint!`, which quotes them: users paste hints into a shell.
fn unquoted_hints(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for call in [".hint(", "hint: Some("] {
        for (at, _) in text.match_indices(call) {
            let argument = argument(text.get(at + call.len()..).unwrap_or_default());
            // Inside of `hint!`, a word may be built with `format!` first: it is quoted as a whole.
            let made = argument.split("hint!(").next().unwrap_or_default();
            if made.contains(concat!("format", "!(")) {
                let line = text.get(..at).unwrap_or_default().lines().count().max(1);
                findings.push(finding(
                    path,
                    Some(line),
                    "a hint with names in it is made by hint!: it quotes them for the shell",
                ));
            }
        }
    }
    findings
}

/// The text up to the parenthesis that closes the one before it.
fn argument(text: &str) -> &str {
    let mut depth = 1_u32;
    let mut is_text = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if is_text => drop(chars.next()),
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// Code of the programs: neither tests nor xtask.
fn is_source(path: &Path) -> bool {
    path.starts_with("crates") && path.components().any(|part| part.as_os_str() == "src")
}

/// One folder, one package, one program, one test file, one page.
fn check_command(workspace: &Workspace, command: &Program) -> Result<Vec<Finding>, Error> {
    let directory = command
        .directory
        .strip_prefix(&workspace.root)
        .unwrap_or(&command.directory);
    let mut findings = Vec::new();
    if directory.file_name() != Some(command.name.as_ref()) {
        findings.push(finding(
            directory,
            None,
            format!("the folder is called as the command: {}", command.name),
        ));
    }
    if command.description.as_ref().is_none_or(String::is_empty) {
        findings.push(finding(
            directory.join("Cargo.toml"),
            None,
            "no description: it is the command's `about`",
        ));
    }
    for file in ["src/main.rs", "src/lib.rs", "tests/cli.rs"] {
        if !workspace.root.join(directory).join(file).is_file() {
            findings.push(finding(directory.join(file), None, "missing"));
        }
    }
    let page = PathBuf::from(format!("docs/reference/{}.md", command.name));
    if !workspace.root.join(&page).is_file() {
        findings.push(finding(page, None, "missing: cargo xtask gen"));
    }
    let read = |file: &str| {
        let path = workspace.root.join(directory).join(file);
        fs::read_to_string(&path).map_err(Error::file(path))
    };
    findings.extend(check_manifest(&directory.join("Cargo.toml"), &read("Cargo.toml")?));
    if let Ok(main) = read("src/main.rs") {
        findings.extend(check_main(&directory.join("src/main.rs"), &main));
    }
    if let Ok(lib) = read("src/lib.rs") {
        findings.extend(limit(&directory.join("src/lib.rs"), lib.lines().count(), COMMAND_LINES));
    }
    Ok(findings)
}

/// Checks that the manifest of a command has only its own keys, and inherits all others from the workspace.
fn check_manifest(path: &Path, manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let shared = key.trim().ends_with(".workspace") || value.replace(' ', "").contains("workspace=true");
        if section.ends_with("dependencies") && !shared {
            findings.push(finding(
                path,
                Some(index + 1),
                "dependencies come from the workspace: NAME.workspace = true",
            ));
        }
        let banned = ["bollard", "ssh2", "kube", "aws-sdk"]
            .into_iter()
            .find(|name| key.starts_with(name));
        if let (Some(name), true) = (banned, section.ends_with("dependencies")) {
            findings.push(finding(
                path,
                Some(index + 1),
                format!("a command does not know {name}"),
            ));
        }
    }
    for field in SHARED_FIELDS {
        if !manifest
            .lines()
            .any(|line| line.replace(' ', "") == format!("{field}.workspace=true"))
        {
            findings.push(finding(path, None, format!("{field}.workspace = true is missing")));
        }
    }
    if !manifest.contains("[lints]\nworkspace = true") {
        findings.push(finding(path, None, "[lints] workspace = true is missing"));
    }
    findings
}

/// `main.rs` is one macro call, below its comment.
fn check_main(path: &Path, main: &str) -> Option<Finding> {
    let mut code = main
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("//"));
    let call = code
        .next()
        .is_some_and(|line| line.contains("!(") && line.ends_with(");"));
    (!call || code.next().is_some()).then(|| finding(path, None, "main.rs is one macro call, on one line"))
}

fn limit(path: &Path, lines: usize, most: usize) -> Option<Finding> {
    (lines > most).then(|| finding(path, None, format!("{lines} lines; {most} at most")))
}

fn finding(path: impl AsRef<Path>, line: Option<usize>, message: impl Into<String>) -> Finding {
    Finding {
        path: path.as_ref().to_owned(),
        line,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(findings: impl IntoIterator<Item = Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_vague_name_is_found_as_file_and_as_folder() {
        assert!(check_name(Path::new("crates/core/src/utils.rs")).is_some());
        assert!(check_name(Path::new("crates/core/src/common/naming.rs")).is_some());
        assert!(check_name(Path::new("crates/core/src/naming.rs")).is_none());
    }

    #[test]
    fn a_source_says_what_it_is_for_and_has_no_banned_words() {
        let path = Path::new("crates/core/src/naming.rs");
        assert!(messages(check_source(path, "//! Names.\nfn f() {}\n")).is_empty());
        assert_eq!(check_source(path, "fn f() {}\n").len(), 1);
        let banned = concat!("//! Names.\n// TO", "DO\nfn f() { std::process::", "exit(1) }\n");
        assert_eq!(
            check_source(path, banned)
                .iter()
                .map(|finding| finding.line)
                .collect::<Vec<_>>(),
            [Some(2), Some(3)]
        );
        let line = concat!("//! X.\nlet x = \"FROM ", "busybox\"; lab::engine(\"", "local\")");
        assert_eq!(check_source(Path::new("tests/real/sync.rs"), line).len(), 2);
        assert_eq!(check_source(Path::new("tests/real/docs.rs"), line).len(), 1);
        let line = concat!("//! X.\nCommand::new(\"", "ssh\")");
        assert_eq!(check_source(Path::new("tests/real/sync.rs"), line).len(), 1);
        // A test may print, and the core's cli ends the process.
        assert!(check_source(Path::new("crates/x/tests/cli.rs"), concat!("//! X.\nprintln", "!(1)")).is_empty());
        assert!(
            check_source(
                Path::new("crates/core/src/cli.rs"),
                concat!("//! X.\nprocess::", "exit(1)")
            )
            .is_empty()
        );
    }

    #[test]
    fn a_hint_with_names_in_it_is_made_by_the_macro_that_quotes_them() {
        let path = Path::new("crates/core/src/x.rs");
        let plain = concat!("//! X.\ne.hint(format", "!(\"docker stop {x}\"))\n");
        assert_eq!(messages(check_source(path, plain)).len(), 1);
        let field = concat!("//! X.\nhint: Some(\n    format", "!(\"a ) {x}\"))\n");
        assert_eq!(messages(check_source(path, field)).len(), 1);
        let good = concat!(
            "//! X.\ne.hint(hint!(\"stop {}\", format",
            "!(\"{a}{b}\")))\nformat",
            "!(\"\")\n"
        );
        assert!(messages(check_source(path, good)).is_empty());
    }

    #[test]
    fn a_table_of_tests_names_those_that_there_are() {
        let page = "`a`\n<!-- strangers -->\n| dock | `x` | `known`, `gone` |\n<!-- /strangers -->\n| `b` |\n";
        assert_eq!(
            messages(named_tests("docs/security.md", "strangers", page, "fn known() {}")),
            ["docs/security.md:3: there is no test \"gone\""]
        );
        assert_eq!(named_tests("docs/security.md", "strangers", "", "").len(), 1);
    }

    #[test]
    fn a_main_is_one_macro_call() {
        let path = Path::new("main.rs");
        assert!(check_main(path, "//! Builds.\n\ndockerutils_core::main!(build_image);\n").is_none());
        assert!(check_main(path, "fn main() {\n}\n").is_some());
        assert!(check_main(path, "core::main!(x);\nfn more() {}\n").is_some());
    }

    #[test]
    fn a_manifest_takes_all_from_the_workspace() {
        let fields: String = SHARED_FIELDS
            .map(|field| format!("{field}.workspace = true\n"))
            .concat();
        let good = format!(
            "[package]\nname = \"x\"\n{fields}\n[dependencies]\nclap.workspace = true\n\n[lints]\nworkspace = true\n"
        );
        assert!(messages(check_manifest(Path::new("Cargo.toml"), &good)).is_empty());
        let bad = good
            .replace("clap.workspace = true", "bollard = \"0.21\"")
            .replace("edition.workspace = true\n", "");
        assert_eq!(check_manifest(Path::new("Cargo.toml"), &bad).len(), 3);
    }
}
