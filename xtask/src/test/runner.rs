//! The test runners: how they are called, and what they counted.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use dockerutils_test_support::process::{self, announce};

use super::report::Times;
use crate::error::Error;
use crate::workspace::Workspace;

/// What a stage counted: its tests, or itself as one check.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct TestCounts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Its tests one by one, if the runner reports them.
    pub(super) times: Times,
}

impl TestCounts {
    /// A stage that did not come to an end.
    pub(super) fn failure() -> Self {
        Self {
            failed: 1,
            ..Self::default()
        }
    }

    /// A runner that failed counts as a failure, even if it counted no test: it may not even have compiled.
    fn agree_with(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// A stage without tests of its own is one check.
pub(super) fn check<E: Into<Error>>(done: Result<(), E>) -> Result<TestCounts, Error> {
    done.map(|()| TestCounts {
        passed: 1,
        ..TestCounts::default()
    })
    .map_err(Into::into)
}

/// Makes sure that a cargo subcommand is there.
pub(super) fn tool(workspace: &Workspace, name: &str) -> Result<(), Error> {
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

/// Tests of one stage, run by nextest.
pub(super) struct Nextest<'a> {
    workspace: &'a Workspace,
    stage: &'a str,
    /// What chooses packages and tests.
    words: Vec<String>,
}

impl<'a> Nextest<'a> {
    pub(super) const fn new(workspace: &'a Workspace, stage: &'a str, words: Vec<String>) -> Self {
        Self {
            workspace,
            stage,
            words,
        }
    }

    /// Compiles them.
    pub(super) fn build(&self) -> Result<(), Error> {
        tool(self.workspace, "cargo-nextest")?;
        Ok(process::run(self.command().arg("--no-run"))?)
    }

    /// Runs them all, whatever fails. The tally has the tests that were tried twice.
    pub(super) fn run(&self) -> Result<TestCounts, Error> {
        let report = self.report();
        match fs::remove_file(&report) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file(&report)(error)),
            _ => {}
        }
        let mut run = self.command();
        run.args(["--no-fail-fast", "--status-level=slow", "--final-status-level=fail"]);
        // Half of them wait: for an engine, a limit of time, a link.
        let threads = 2 * thread::available_parallelism().map_or(1, NonZero::get);
        run.arg(format!("--test-threads={threads}"));
        // A change that affects no test of these packages is not a failure.
        run.arg("--no-tests=pass").stderr(Stdio::piped());
        if io::stderr().is_terminal() {
            run.arg("--color=always");
        }
        let (success, lines) = watch(&mut run)?;
        let (passed, failed) = lines
            .iter()
            .rev()
            .find_map(|line| nextest_counts(line))
            .unwrap_or_default();
        let times = match report.exists() {
            true => {
                // The next stage's report has the same path.
                let kept = self.workspace.target.join(format!("junit-{}.xml", self.stage));
                fs::copy(&report, &kept).map_err(Error::file(&kept))?;
                Times::read(self.stage, &kept)?
            }
            false => Times::default(),
        };
        Ok(TestCounts { passed, failed, times }.agree_with(success))
    }

    fn command(&self) -> Command {
        let mut nextest = self.workspace.cargo();
        nextest.args(["nextest", "run", "--cargo-quiet"]).args(&self.words);
        nextest
    }

    /// Where `.config/nextest.toml` has the report written.
    fn report(&self) -> PathBuf {
        self.workspace.root.join("target/nextest/default/junit.xml")
    }
}

/// Runs `cargo test`.
pub(super) fn libtest(test: &mut Command) -> Result<TestCounts, Error> {
    let (success, lines) = watch(test)?;
    let mut tally = TestCounts::default();
    for (passed, failed) in lines.iter().filter_map(|line| libtest_counts(line)) {
        tally.passed += passed;
        tally.failed += failed;
    }
    Ok(tally.agree_with(success))
}

/// Runs a program whose stdout or stderr is piped: its output is shown as it comes, and returned without colours.
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

/// Removes the colours: ECMA-48's control sequences end with a letter.
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
        assert_eq!(TestCounts::default().agree_with(false).failed, 1);
        assert_eq!(
            TestCounts {
                failed: 2,
                ..TestCounts::default()
            }
            .agree_with(false)
            .failed,
            2
        );
        assert_eq!(TestCounts::default().agree_with(true).failed, 0);
    }
}
