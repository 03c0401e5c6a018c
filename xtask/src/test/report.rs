//! The time of every test, from the JUnit reports that nextest writes.

use std::fs;
use std::path::{Path, PathBuf};

use quick_junit::{Report, TestCaseStatus};

use crate::error::Error;
use crate::workspace::Workspace;

/// One test of a run.
#[derive(Debug, Clone, PartialEq)]
struct Time {
    /// As `real: dockerutils-tests::real sync::a_file_is_sent`: the stage, the program, the test.
    name: String,
    seconds: f64,
    verdict: TestVerdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TestVerdict {
    Passed,
    /// Failed first, and passed when it was run again.
    Flaky,
    Failed,
}

/// The tests of one stage or of several.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Times(Vec<Time>);

impl Times {
    /// Reads the report of a stage.
    pub(super) fn read(stage: &str, file: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(file).map_err(Error::file(file))?;
        let report = Report::deserialize_from_str(&text)
            .map_err(|error| Error::Failed(format!("{} is no JUnit report: {error}", file.display())))?;
        let cases = report.test_suites.iter().flat_map(|suite| {
            suite.test_cases.iter().map(|case| Time {
                name: format!("{stage}: {} {}", suite.name.as_str(), case.name.as_str()),
                seconds: case.time.unwrap_or_default().as_secs_f64(),
                verdict: match &case.status {
                    TestCaseStatus::NonSuccess { .. } => TestVerdict::Failed,
                    TestCaseStatus::Success { flaky_runs, .. } if !flaky_runs.is_empty() => TestVerdict::Flaky,
                    _ => TestVerdict::Passed,
                },
            })
        });
        Ok(Self(cases.collect()))
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Writes all of them, the slowest first, to `target/test-times.txt`; returns its path.
    pub(super) fn write(&mut self, workspace: &Workspace) -> Result<PathBuf, Error> {
        self.0.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let file = workspace.target.join("test-times.txt");
        let lines: String = self.0.iter().map(|time| time.line() + "\n").collect();
        fs::write(&file, lines).map_err(Error::file(&file))?;
        Ok(file)
    }

    /// A line for each of the slowest; after [`Times::write`].
    pub(super) fn slowest(&self, count: usize) -> Vec<String> {
        self.0.iter().take(count).map(Time::line).collect()
    }

    pub(super) fn flaky(&self) -> impl Iterator<Item = &str> {
        self.of(TestVerdict::Flaky)
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.of(TestVerdict::Failed)
    }

    fn of(&self, verdict: TestVerdict) -> impl Iterator<Item = &str> {
        let tests = self.0.iter().filter(move |time| time.verdict == verdict);
        tests.map(|time| time.name.as_str())
    }
}

impl Time {
    fn line(&self) -> String {
        format!("{:>7.1} s  {}", self.seconds, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" time="9.0">
  <testsuite name="t::real" tests="3" disabled="0" errors="0" failures="1">
    <testcase name="a" classname="t::real" time="1.5"/>
    <testcase name="b" classname="t::real" time="3.000"><flakyFailure type="test failure" time="1.0">x</flakyFailure></testcase>
    <testcase name="c" classname="t::real" time="2.000"><failure type="test failure">y</failure></testcase>
  </testsuite>
</testsuites>"#;

    #[test]
    fn a_report_of_nextest_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, REPORT).unwrap();
        let times = Times::read("real", file.path()).unwrap();
        assert_eq!(times.flaky().collect::<Vec<_>>(), ["real: t::real b"]);
        assert_eq!(times.failed().collect::<Vec<_>>(), ["real: t::real c"]);
        assert_eq!(times.slowest(1), ["    1.5 s  real: t::real a"]);
    }
}
