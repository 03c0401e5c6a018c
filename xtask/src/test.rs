//! `cargo xtask test`: all checks and tests, in stages.
//!
//! A stage that fails does not stop the next one: one run reports everything. Compiling and installing is timed apart
//! from running; the budget is for running only, so that it is the same on a fresh clone.

mod changed;
mod load;
mod report;
mod runner;

use std::io::{self, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use dockerutils_test_support::process::announce;
use dockerutils_test_support::{lab, process};

use crate::error::Error;
use crate::workspace::{Profile, Workspace};
use crate::{fuzz, generate, tidy};
use changed::Selection;
use report::Times;
use runner::{Nextest, TestCounts, check, tool};

/// How many flaky tests CI lets through: work should not wait for one. On a developer's machine, none.
const FLAKY_IN_CI: usize = 2;
/// How many inputs the stage makes for each parser: the same ones every time.
const FUZZ_RUNS: u32 = 100_000;
/// How often `--stress` runs the stage.
const STRESS_ROUNDS: usize = 3;
/// How many of the slowest tests are shown at the end.
const SLOWEST: usize = 15;

#[derive(Parser)]
pub(crate) struct Args {
    /// Run this stage only; several add up
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// Run what a change can affect: the files that differ from REV (else from where this branch left main)
    #[arg(long, value_name = "REV", num_args = 0..=1, default_missing_value = "")]
    changed: Option<String>,
    /// Run the stage `real` (or those named) three times while every processor is kept busy
    #[arg(long, conflicts_with = "changed")]
    stress: bool,
    /// List the stages and their budgets
    #[arg(long)]
    list: bool,
}

struct Stage {
    name: &'static str,
    about: &'static str,
    /// Seconds that its checks may take on two processors that have nothing else to do, when all is compiled.
    budget: u64,
    /// Installs and compiles what the checks need.
    prepare: fn(&StageContext) -> Result<(), Error>,
    run: fn(&StageContext) -> Result<TestCounts, Error>,
}

/// The quickest stages come first, so that failures show early.
const STAGES: [Stage; 10] = [
    Stage {
        name: "fmt",
        about: "formatting",
        budget: 10,
        prepare: nothing,
        run: fmt,
    },
    Stage {
        name: "tidy",
        about: "the conventions of the code",
        budget: 10,
        prepare: nothing,
        run: |_| check(tidy::run()),
    },
    Stage {
        name: "clippy",
        about: "lints, warnings denied",
        budget: 10,
        // Its checks are a compilation. A second run prints the same findings at no cost.
        prepare: |context| clippy(context, &context.selection.everyday(&context.workspace)),
        run: |context| check(clippy(context, &context.selection.everyday(&context.workspace))),
    },
    Stage {
        name: "deny",
        about: "licences, sources and bans of dependencies",
        budget: 20,
        prepare: |context| tool(&context.workspace, "cargo-deny"),
        run: deny,
    },
    Stage {
        name: "gen",
        about: "generated pages are up to date",
        budget: 20,
        prepare: |context| context.workspace.build(Profile::Debug).map(drop),
        run: |_| check(generate::check()),
    },
    Stage {
        name: "unit",
        about: "unit and command line tests; no Docker needed",
        budget: 150,
        prepare: |context| Nextest::new(&context.workspace, "unit", unit(context)).build(),
        run: |context| Nextest::new(&context.workspace, "unit", unit(context)).run(),
    },
    Stage {
        name: "doc",
        about: "examples of the documentation",
        budget: 30,
        // cargo compiles each example when it runs it.
        prepare: nothing,
        run: |context| runner::libtest(doc(context).args(["--quiet", "--no-fail-fast"]).stdout(Stdio::piped())),
    },
    Stage {
        name: "fuzz",
        about: "a few seconds for each parser of what others wrote",
        budget: 70,
        prepare: |context| fuzz::build(&context.workspace).map(drop),
        run: fuzz_all,
    },
    Stage {
        name: "real",
        about: "real engines, old and new, each image store; JupyterLab, and a browser",
        budget: 1000,
        prepare: prepare_real,
        run: |context| real_tests(context).run(),
    },
    Stage {
        name: "aws",
        about: "what is built with AWS's crates: lints, unit tests, and Amazon's registry played by real parts",
        budget: 60,
        prepare: |context| prepare_apart(context, "aws"),
        run: |context| Nextest::new(&context.workspace, "aws", packages_of(context, "aws")).run(),
    },
];

/// What the stages work with.
struct StageContext {
    workspace: Workspace,
    selection: Selection,
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
    let selection = match &args.changed {
        None => Selection::All,
        Some(since) => Selection::changed(&workspace, since)?,
    };
    if let Some(words) = selection.words() {
        announce(words);
    }
    let context = StageContext { workspace, selection };
    let chosen = |stage: &&Stage| match args.stage.is_empty() {
        true => context.selection.has_stage(stage.name, &context.workspace) && (!args.stress || stage.name == "real"),
        false => args.stage.iter().any(|name| name == stage.name),
    };
    let stages: Vec<&Stage> = STAGES.iter().filter(chosen).collect();
    let mut total = Total::default();
    // The lab belongs to this run between its stages, too.
    lab::hold()?;
    thread::scope(|scope| {
        // Engines start while the workspace compiles. The stage that needs them reports a failure.
        if stages.iter().any(|stage| ["real", "aws"].contains(&stage.name)) {
            scope.spawn(lab::engines);
        }
        if stages.iter().any(|stage| stage.name == "real") {
            scope.spawn(lab::notebook_images);
        }
        let _busy = args.stress.then(load::Burners::start);
        for _ in 0..if args.stress { STRESS_ROUNDS } else { 1 } {
            for stage in &stages {
                total.add(stage, &context);
            }
        }
    });
    total.end(&context)
}

/// The result of all stages.
#[derive(Default)]
struct Total {
    lines: Vec<String>,
    passed: usize,
    failed: usize,
    times: Times,
    /// The machine between the stages: one probe serves the stage before and the one after it.
    machine: Option<load::Machine>,
}

impl Total {
    fn add(&mut self, stage: &Stage, context: &StageContext) {
        announce(format_args!("\n=== {}: {}", stage.name, stage.about));
        let started = Instant::now();
        let prepared = (stage.prepare)(context);
        let prepare = started.elapsed();
        let before = self.machine.take().unwrap_or_else(load::probe);
        let started = Instant::now();
        let tally = prepared.and_then(|()| (stage.run)(context)).unwrap_or_else(|error| {
            announce(format_args!("{}: {error}", stage.name));
            TestCounts::failure()
        });
        let took = started.elapsed();
        let after = self.machine.insert(load::probe());
        let verdict = budget(stage.budget, took, before.beside(*after));
        self.lines.push(format!(
            "{:<8} {:<6} {:>6.1} s of {} s{verdict}; compiled and prepared in {:.1} s",
            stage.name,
            if tally.failed == 0 && !verdict.fails() {
                "ok"
            } else {
                "FAILED"
            },
            took.as_secs_f64(),
            stage.budget,
            prepare.as_secs_f64(),
        ));
        self.passed += tally.passed;
        self.failed += tally.failed + usize::from(verdict.fails());
        self.times.add(tally.times);
    }

    fn end(mut self, context: &StageContext) -> Result<(), Error> {
        let file = self.times.write(&context.workspace)?;
        say("")?;
        for line in &self.lines {
            say(line)?;
        }
        let slowest = self.times.slowest(SLOWEST);
        if !slowest.is_empty() {
            say(format_args!(
                "\nThe slowest tests; the time of every test is in {}:",
                file.display()
            ))?;
            for line in slowest {
                say(line)?;
            }
        }
        let failed: Vec<&str> = self.times.failed().collect();
        if !failed.is_empty() {
            say("\nFailed:")?;
        }
        for name in failed {
            say(format_args!("  {name}"))?;
        }
        let flaky: Vec<&str> = self.times.flaky().collect();
        let allowed = if std::env::var_os("CI").is_some_and(|value| value == "true") {
            FLAKY_IN_CI
        } else {
            0
        };
        if !flaky.is_empty() {
            say(format_args!(
                "\nFlaky: passed when tried again, which is a fault of the test or of ours ({allowed} are let through):"
            ))?;
        }
        for name in &flaky {
            say(format_args!("  {name}"))?;
        }
        if flaky.len() > allowed {
            self.passed = self.passed.saturating_sub(flaky.len());
            self.failed += flaky.len();
        }
        say("")?;
        say(format_args!("{} passed, {} failed", self.passed, self.failed))?;
        match self.failed {
            0 => Ok(()),
            _ => Err(Error::Silent),
        }
    }
}

/// How long a stage took, compared with its budget.
#[derive(Debug, PartialEq, Eq)]
enum BudgetVerdict {
    Within,
    Over,
    /// More than twice the budget, on a machine that was busy with something else.
    Excused,
    /// More than twice the budget, without such an explanation.
    TooLong,
}

impl BudgetVerdict {
    fn fails(&self) -> bool {
        *self == Self::TooLong
    }
}

impl std::fmt::Display for BudgetVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Within => "",
            Self::Over => ", over its budget",
            Self::Excused => ", over twice its budget, on a machine that is busy with something else",
            Self::TooLong => {
                ", over twice its budget: make it quicker, or say why it takes so long and raise the budget"
            }
        })
    }
}

/// A slower machine has more time in proportion; a busy one is not judged.
fn budget(seconds: u64, took: Duration, machine: load::Machine) -> BudgetVerdict {
    let budget = Duration::from_secs(seconds).mul_f64(machine.slowness);
    if took <= budget {
        BudgetVerdict::Within
    } else if took <= budget * 2 {
        BudgetVerdict::Over
    } else if machine.busy {
        BudgetVerdict::Excused
    } else {
        BudgetVerdict::TooLong
    }
}

fn nothing(_: &StageContext) -> Result<(), Error> {
    Ok(())
}

fn fmt(context: &StageContext) -> Result<TestCounts, Error> {
    check(process::run(
        context.workspace.cargo().args(["fmt", "--all", "--check"]),
    ))
}

fn clippy(context: &StageContext, packages: &[String]) -> Result<(), Error> {
    let mut clippy = context.workspace.cargo();
    clippy.args(["clippy", "--quiet", "--all-targets"]);
    clippy.args(packages).args(["--", "--deny", "warnings"]);
    Ok(process::run(&mut clippy)?)
}

/// Not `advisories`: their database is on GitHub, which a build machine need not reach.
fn deny(context: &StageContext) -> Result<TestCounts, Error> {
    let mut deny = context.workspace.cargo();
    deny.args(["deny", "--log-level=error", "check", "bans", "licenses", "sources"]);
    check(process::run(&mut deny))
}

fn unit(context: &StageContext) -> Vec<String> {
    let mut words = context.selection.everyday(&context.workspace);
    match context.selection {
        Selection::All => words.extend(["--exclude", changed::REAL_TESTS].map(str::to_owned)),
        Selection::Changed(_) => words.push(format!("--filterset=not package({})", changed::REAL_TESTS)),
    }
    words
}

fn doc(context: &StageContext) -> std::process::Command {
    let mut test = context.workspace.cargo();
    test.args(["test", "--doc"])
        .args(context.selection.with_examples(&context.workspace));
    test
}

fn fuzz_all(context: &StageContext) -> Result<TestCounts, Error> {
    let (passed, failed) = fuzz::all(&context.workspace, fuzz::Effort::Repeat(FUZZ_RUNS))?;
    Ok(TestCounts {
        passed,
        failed,
        ..TestCounts::default()
    })
}

fn prepare_real(context: &StageContext) -> Result<(), Error> {
    real_tests(context).build()?;
    // The tests run the commands as programs, and cargo does not know that they need them.
    context.workspace.build(Profile::Debug)?;
    // Before the tests, so that it does not count as the time of one of them.
    let started = Instant::now();
    let engines = lab::engines()?;
    lab::notebook_images()?;
    let seconds = started.elapsed().as_secs_f64();
    announce(format_args!(
        "lab: {} engines and the images of notebooks, waited for {seconds:.1} s",
        engines.len()
    ));
    Ok(())
}

fn real_tests(context: &StageContext) -> Nextest<'_> {
    let mut words = vec!["--package".to_owned(), changed::REAL_TESTS.to_owned()];
    words.extend(
        context
            .selection
            .real_filter()
            .map(|filter| format!("--filterset={filter}")),
    );
    Nextest::new(&context.workspace, "real", words)
}

fn packages_of(context: &StageContext, stage: &str) -> Vec<String> {
    let packages = context.workspace.packages_of(stage);
    packages
        .flat_map(|name| ["--package".to_owned(), name.to_owned()])
        .collect()
}

/// Compiles packages that have a stage of their own, because everyday work should not wait for their dependencies.
fn prepare_apart(context: &StageContext, stage: &str) -> Result<(), Error> {
    let packages = packages_of(context, stage);
    clippy(context, &packages)?;
    // Their tests run the commands, which start these programs.
    context.workspace.build(Profile::Debug)?;
    let mut build = context.workspace.cargo();
    process::run(build.args(["build", "--quiet", "--bins"]).args(&packages))?;
    Nextest::new(&context.workspace, stage, packages).build()?;
    lab::engines()?;
    Ok(())
}

fn say(line: impl std::fmt::Display) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::file("stdout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_budget_fails_unless_the_machine_is_busy_or_slow() {
        let machine = |busy, slowness| load::Machine { busy, slowness };
        let judge = |took, machine| budget(10, Duration::from_secs(took), machine);
        assert_eq!(judge(10, machine(false, 1.0)), BudgetVerdict::Within);
        assert_eq!(judge(20, machine(false, 1.0)), BudgetVerdict::Over);
        assert_eq!(judge(21, machine(false, 1.0)), BudgetVerdict::TooLong);
        assert_eq!(judge(21, machine(true, 1.0)), BudgetVerdict::Excused);
        assert_eq!(judge(21, machine(false, 2.0)), BudgetVerdict::Over);
    }
}
