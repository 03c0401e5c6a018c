//! `cargo xtask test`: all checks and tests, in stages.
//!
//! A stage that fails does not stop the next one: one run tells all. The budgets are for a warm machine; the first run
//! of all, which compiles everything and makes the lab, takes longer, and says so.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use dockerutils_test_support::{lab, process};
use process::announce;

use crate::error::Error;
use crate::workspace::{Profile, Workspace};
use crate::{fuzz, generate, tidy};

#[derive(Parser)]
pub(crate) struct Args {
    /// Run this stage only; several add up
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// List the stages and their budgets
    #[arg(long)]
    list: bool,
}

struct Stage {
    name: &'static str,
    about: &'static str,
    /// Seconds that it may take when nothing has to be installed or compiled from nothing.
    budget: u64,
    run: fn(&Workspace) -> Result<Tally, Error>,
}

/// The order is that of the time to the first bad news. Together: ten minutes.
const STAGES: [Stage; 10] = [
    Stage {
        name: "fmt",
        about: "formatting",
        budget: 10,
        run: fmt,
    },
    Stage {
        name: "tidy",
        about: "the conventions of the code",
        budget: 10,
        run: |_| check(tidy::run()),
    },
    Stage {
        name: "clippy",
        about: "lints, warnings denied",
        budget: 50,
        run: clippy,
    },
    Stage {
        name: "deny",
        about: "licences, sources and bans of dependencies",
        budget: 20,
        run: deny,
    },
    Stage {
        name: "gen",
        about: "generated pages are up to date",
        budget: 30,
        run: |_| check(generate::check()),
    },
    Stage {
        name: "unit",
        about: "unit and command line tests; no Docker needed",
        budget: 120,
        run: unit,
    },
    Stage {
        name: "doc",
        about: "examples of the documentation",
        budget: 30,
        run: doc,
    },
    Stage {
        name: "fuzz",
        about: "a few seconds for each parser of what others wrote",
        budget: 80,
        run: fuzz_all,
    },
    Stage {
        name: "real",
        about: "real engines, old and new, each image store",
        budget: 200,
        run: real,
    },
    Stage {
        name: "aws",
        about: "what is built with AWS's crates: lints, unit tests, and Amazon's registry played by real parts",
        budget: 50,
        run: |workspace| apart(workspace, "aws"),
    },
];

/// What a stage counted: its tests, or itself as one check.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    /// The test runner's own summary.
    summary: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.list {
        for Stage {
            name, about, budget, ..
        } in &STAGES
        {
            say(format_args!("{name:<8} {budget:>4} s  {about}"))?;
        }
        return Ok(());
    }
    let unknown = args
        .stage
        .iter()
        .find(|name| !STAGES.iter().any(|stage| stage.name == name.as_str()));
    if let Some(name) = unknown {
        let known = STAGES.each_ref().map(|stage| stage.name).join(", ");
        return Err(Error::Failed(format!("no stage {name:?}; there are: {known}")));
    }
    let workspace = Workspace::load()?;
    Workspace::require_libraries()?;
    let mut lines = Vec::new();
    let mut total = Tally::default();
    let chosen = |stage: &&Stage| args.stage.is_empty() || args.stage.iter().any(|name| name == stage.name);
    for stage in STAGES.iter().filter(chosen) {
        announce(format_args!("\n=== {}: {}", stage.name, stage.about));
        let started = Instant::now();
        let tally = (stage.run)(&workspace).unwrap_or_else(|error| {
            announce(format_args!("{}: {error}", stage.name));
            Tally {
                failed: 1,
                ..Tally::default()
            }
        });
        lines.push(report(stage, &tally, started.elapsed()));
        total.passed += tally.passed;
        total.failed += tally.failed;
        total.summary.extend(tally.summary);
    }
    say("")?;
    for line in lines.iter().chain(&total.summary) {
        say(line)?;
    }
    say(format_args!("{} passed, {} failed", total.passed, total.failed))?;
    match total.failed {
        0 => Ok(()),
        _ => Err(Error::Silent),
    }
}

fn report(stage: &Stage, tally: &Tally, took: Duration) -> String {
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    let over = if took > Duration::from_secs(stage.budget) {
        ", over its budget"
    } else {
        ""
    };
    format!(
        "{:<8} {verdict:<6} {:>6.1} s of {} s{over}",
        stage.name,
        took.as_secs_f64(),
        stage.budget
    )
}

fn fmt(workspace: &Workspace) -> Result<Tally, Error> {
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    // A workspace of its own.
    let fuzz = ["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"];
    check(process::run(workspace.cargo().args(fuzz)))
}

fn clippy(workspace: &Workspace) -> Result<Tally, Error> {
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--quiet", "--all-targets"]);
    clippy.args(workspace.everyday()).args(["--", "--deny", "warnings"]);
    check(process::run(&mut clippy))
}

/// Not `advisories`: their database is on GitHub, which a build machine need not reach.
fn deny(workspace: &Workspace) -> Result<Tally, Error> {
    tool(workspace, "cargo-deny")?;
    let mut deny = workspace.cargo();
    deny.args(["deny", "--log-level=error", "check", "bans", "licenses", "sources"]);
    check(process::run(&mut deny))
}

fn unit(workspace: &Workspace) -> Result<Tally, Error> {
    let mut packages: Vec<&str> = workspace.everyday().collect();
    packages.extend(["--exclude", "dockerutils-tests"]);
    nextest(workspace, &packages)
}

/// All checks of the packages that have a stage of their own, because everyday work should not wait for what they
/// depend on.
fn apart(workspace: &Workspace, stage: &str) -> Result<Tally, Error> {
    let packages: Vec<&str> = workspace.packages_of(stage).collect();
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--quiet", "--all-targets"]).args(&packages);
    process::run(clippy.args(["--", "--deny", "warnings"]))?;
    lab::engines()?;
    // Their tests run the commands, which start these programs.
    workspace.build(Profile::Debug)?;
    process::run(workspace.cargo().args(["build", "--quiet", "--bins"]).args(&packages))?;
    nextest(workspace, &packages)
}

fn real(workspace: &Workspace) -> Result<Tally, Error> {
    // Before the tests, so that none of them is charged for it.
    let started = Instant::now();
    let engines = lab::engines()?;
    announce(format_args!(
        "lab: {} engines, {:.1} s",
        engines.len(),
        started.elapsed().as_secs_f64()
    ));
    // The tests run the commands as programs, and cargo does not know that they need them.
    workspace.build(Profile::Debug)?;
    nextest(workspace, &["--package", "dockerutils-tests"])
}

fn doc(workspace: &Workspace) -> Result<Tally, Error> {
    let mut test = workspace.cargo();
    test.args(["test", "--quiet", "--doc", "--no-fail-fast"])
        .args(workspace.everyday())
        .stdout(Stdio::piped());
    let (success, lines) = watch(&mut test)?;
    let mut tally = Tally::default();
    for (passed, failed) in lines.iter().filter_map(|line| libtest_counts(line)) {
        tally.passed += passed;
        tally.failed += failed;
    }
    Ok(tally.agree_with(success))
}

fn fuzz_all(workspace: &Workspace) -> Result<Tally, Error> {
    let (passed, failed) = fuzz::all(workspace, Duration::from_secs(5))?;
    Ok(Tally {
        passed,
        failed,
        summary: Vec::new(),
    })
}

fn nextest(workspace: &Workspace, packages: &[&str]) -> Result<Tally, Error> {
    tool(workspace, "cargo-nextest")?;
    let mut nextest = workspace.cargo();
    nextest.args([
        "nextest",
        "run",
        "--no-fail-fast",
        "--cargo-quiet",
        "--status-level=slow",
        "--final-status-level=fail",
    ]);
    nextest.args(packages).stderr(Stdio::piped());
    if io::stderr().is_terminal() {
        nextest.arg("--color=always");
    }
    let (success, lines) = watch(&mut nextest)?;
    let from = lines.iter().position(|line| nextest_counts(line).is_some());
    let summary: Vec<String> = from.and_then(|at| lines.get(at..)).unwrap_or_default().to_vec();
    let (passed, failed) = summary
        .first()
        .and_then(|line| nextest_counts(line))
        .unwrap_or_default();
    Ok(Tally {
        passed,
        failed,
        summary,
    }
    .agree_with(success))
}

impl Tally {
    /// A runner that failed has failed, even where it counted nothing: it may not even have compiled.
    fn agree_with(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// A stage without tests of its own is one check.
fn check<E: Into<Error>>(done: Result<(), E>) -> Result<Tally, Error> {
    done.map(|()| Tally {
        passed: 1,
        ..Tally::default()
    })
    .map_err(Into::into)
}

/// Makes sure that a cargo subcommand is there.
fn tool(workspace: &Workspace, name: &str) -> Result<(), Error> {
    if process::on_path(name).is_some() {
        return Ok(());
    }
    // Without optimisation: it runs for a second, and is compiled for minutes.
    let mut install = workspace.cargo();
    install.args(["install", "--locked", "--debug", name]);
    announce(format_args!(
        "{name} is missing; installing: {}",
        process::shown(&install)
    ));
    Ok(process::run(&mut install)?)
}

/// Runs a program whose stdout or stderr is piped: what it says is shown as it comes, and returned without colours.
fn watch(command: &mut Command) -> Result<(bool, Vec<String>), Error> {
    let name = process::shown(command);
    let mut child = command.spawn().map_err(Error::file(&name))?;
    let stream: Option<Box<dyn io::Read>> = match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), _) => Some(Box::new(stdout)),
        (None, Some(stderr)) => Some(Box::new(stderr)),
        (None, None) => None,
    };
    let mut lines = Vec::new();
    for line in stream
        .into_iter()
        .flat_map(|stream| BufReader::new(stream).split(b'\n'))
    {
        let line = line.map_err(Error::file(&name))?;
        let line = String::from_utf8_lossy(&line);
        announce(&line);
        lines.push(plain(&line));
    }
    Ok((child.wait().map_err(Error::file(&name))?.success(), lines))
}

/// `     Summary [   0.578s] 15 tests run: 13 passed (1 slow), 2 failed, 0 skipped` is 13 and 2.
fn nextest_counts(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once("] ")?;
    // `7/15 tests run` is a run that was cut short.
    let (run, counts) = counts.split_once(" run: ")?;
    let run: usize = run.split([' ', '/']).next()?.parse().ok()?;
    let passed = counts
        .split(", ")
        .find_map(|part| part.split_once(" passed"))?
        .0
        .parse()
        .ok()?;
    Some((passed, run.saturating_sub(passed)))
}

/// `test result: ok. 3 passed; 0 failed; 0 ignored; ...` is 3 and 0.
fn libtest_counts(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what))?
            .trim()
            .parse()
            .ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

/// Takes the colours away: ECMA-48's control sequences end with a letter.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(
            part.trim_start_matches(|c: char| !c.is_ascii_alphabetic())
                .get(1..)
                .unwrap_or_default(),
        );
    }
    text
}

fn say(line: impl std::fmt::Display) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::file("stdout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_summaries_are_understood() {
        let line = "     Summary [   0.578s] 15 tests run: 13 passed (1 slow), 2 failed, 1 skipped";
        assert_eq!(nextest_counts(line), Some((13, 2)));
        assert_eq!(
            nextest_counts("     Summary [  61.1s] 2/3 tests run: 1 passed, 1 timed out, 0 skipped"),
            Some((1, 1))
        );
        assert_eq!(
            nextest_counts("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped"),
            Some((1, 0))
        );
        assert_eq!(nextest_counts("        PASS [   0.013s] x Summary [1s] y"), None);
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(libtest_counts(line), Some((3, 1)));
    }

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(plain("\u{1b}[32;1m     Summary\u{1b}[0m [ 1s]"), "     Summary [ 1s]");
    }

    #[test]
    fn a_runner_that_failed_has_failed() {
        assert_eq!(Tally::default().agree_with(false).failed, 1);
        assert_eq!(
            Tally {
                failed: 2,
                ..Tally::default()
            }
            .agree_with(false)
            .failed,
            2
        );
        assert_eq!(Tally::default().agree_with(true).failed, 0);
    }

    #[test]
    fn the_budgets_are_ten_minutes_together() {
        assert!(STAGES.iter().map(|stage| stage.budget).sum::<u64>() <= 600);
    }
}
