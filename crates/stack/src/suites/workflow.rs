//! Workflow tests: in containers of the image, by its own pytest.
//!
//! UCSD's runner starts `pytest /opt/workflow_tests` in a pod of the image. Here it is a container, as `docker run IMAGE pytest
//! /opt/workflow_tests` makes it; then one for each executable file that is directly in that folder.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::containers::container::{self, Created};
use dockerutils_core::docker::containers::files::{self, FileInside};
use dockerutils_core::docker::containers::heard::OutputCounter;
use dockerutils_core::docker::containers::log::ContainerLog;
use dockerutils_core::docker::containers::{LABEL_PROJECT, LABEL_USER, foreground};
use dockerutils_core::docker::options::run_options::{ClientFacts, ContainerPlan, RunOptions};
use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::legal_container_name;
use dockerutils_core::ops::run::{GpuSupport, gpu_support};
use dockerutils_core::output::progress::steps::{Ended as StepEnded, Steps};
use dockerutils_core::output::step_excerpt;
use dockerutils_core::shell;

use super::child::{self, ProgramEnd, SharedLog};
use super::junit::{self, JunitSum, ProgramCase};
use super::pytest::{NO_TESTS, is_pytest_s};
use super::test_log::TestLog;
use super::{SuiteOutcome, SuiteRequest, SuiteVerdict, WORKFLOW_TESTS_INSIDE};
use crate::artifacts;

/// Where pytest writes its JUnit file in the container.
const JUNIT_INSIDE: &str = "/tmp/dockerutils-workflow-tests.xml";
/// The most bytes of it.
const LONGEST_JUNIT: usize = 16 << 20;
/// The most bytes of the folder with the tests, when its executable files are looked for.
const LARGEST_FOLDER: usize = 256 << 20;
/// The codes for a program that can't be run, and for one that is not there.
const NOT_RUN: [i32; 2] = [126, 127];

/// The words of the options of `docker run` for the containers of workflow tests, without the container's name.
fn options(request: &SuiteRequest<'_>, user: &str, gpu: Option<GpuSupport>) -> Vec<String> {
    let mut words: Vec<String> = match gpu {
        None => Vec::new(),
        Some(GpuSupport::Runtime) => ["--runtime=nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all"]
            .map(str::to_owned)
            .into(),
        Some(GpuSupport::Cdi) => ["--gpus", "all"].map(str::to_owned).into(),
    };
    let project = request
        .root
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    for (label, value) in [(LABEL_PROJECT, project.as_str()), (LABEL_USER, user)] {
        words.extend(["--label".to_owned(), format!("{label}={value}")]);
    }
    words
}

/// The arguments of the container in which pytest runs.
fn pytest_words() -> Vec<String> {
    vec![
        "pytest".to_owned(),
        format!("--junitxml={JUNIT_INSIDE}"),
        WORKFLOW_TESTS_INSIDE.to_owned(),
    ]
}

/// The line that does the same with docker.
pub(super) fn line(request: &SuiteRequest<'_>, user: &str) -> String {
    let gpu = request.gpu.then_some(GpuSupport::Runtime);
    let mut words = vec!["docker".to_owned(), "run".to_owned(), "--rm".to_owned()];
    words.extend(options(request, user, gpu));
    words.push(request.reference.to_owned());
    words.extend(pytest_words());
    shell::join(&words)
}

/// Runs the suite.
///
/// # Errors
/// An engine that fails, a GPU that it does not have, files that can't be written.
pub(super) async fn run(context: &Context, engine: &Engine, request: &SuiteRequest<'_>) -> Result<SuiteOutcome> {
    let gpu = match request.gpu {
        true => Some(gpu_support(engine, true).await?),
        false => None,
    };
    let running = WorkflowSuite {
        context,
        engine,
        request,
        options: options(request, &context.env.user(), gpu),
        proxies: proxies(context, engine)?,
        began: Instant::now(),
    };
    let first = running.create(0, &pytest_words()).await?;
    if !container::has(engine, first.id(), WORKFLOW_TESTS_INSIDE).await? {
        if !request.folders().is_empty() {
            context.printer.warning(&format!(
                "{} has workflow tests, and there is no {WORKFLOW_TESTS_INSIDE} in {}: COPY workflow_tests \
                 {WORKFLOW_TESTS_INSIDE}",
                request.label, request.reference
            ));
        }
        return Ok(SuiteOutcome::none(request.kind));
    }
    let files = files::files_in(engine, first.id(), WORKFLOW_TESTS_INSIDE, LARGEST_FOLDER).await?;
    let files: Vec<FileInside> = files.into_iter().flatten().collect();
    let runs = |file: &&FileInside| file.is_executable && !file.name.starts_with('.') && !is_pytest_s(&file.name);
    let programs: Vec<String> = files.iter().filter(runs).map(|file| file.name.clone()).collect();
    // An image with nothing but executable files need not have pytest.
    let has_python = programs.is_empty() || files.iter().any(|file| file.name.ends_with(".py"));
    running.all(has_python.then_some(first), &programs).await
}

/// The proxies that docker's configuration gives to containers.
fn proxies(context: &Context, engine: &Engine) -> Result<Vec<(String, String)>> {
    let config = ClientConfig::of(&context.env)?;
    let variables = engine.proxy_variables(&config).into_iter();
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A suite that runs.
struct WorkflowSuite<'r> {
    context: &'r Context,
    engine: &'r Engine,
    request: &'r SuiteRequest<'r>,
    options: Vec<String>,
    proxies: Vec<(String, String)>,
    began: Instant,
}

impl WorkflowSuite<'_> {
    /// The container of the step of this number, which is removed when it is dropped.
    async fn create(&self, number: usize, command: &[String]) -> Result<Created> {
        let plan = self.plan(number, command)?;
        container::create(self.engine, &plan).await
    }

    fn plan(&self, number: usize, command: &[String]) -> Result<ContainerPlan> {
        let wrong = |cause: &dyn std::error::Error| Error::failed(format!("the container can't be made: {cause}"));
        let name = format!(
            "{}_{}_workflow-tests_{}-{number}",
            self.context.env.user(),
            self.request.image.name,
            std::process::id()
        );
        let mut options = vec!["--name".to_owned(), legal_container_name(&name)];
        options.extend(self.options.iter().cloned());
        let lookup = |name: &str| self.context.env.get(name).map(str::to_owned);
        let facts = ClientFacts {
            proxies: &self.proxies,
            ..ClientFacts::of(self.engine, &lookup, self.request.root)
        };
        let parsed = RunOptions::parse(&options).map_err(|cause| wrong(&cause))?;
        parsed
            .plan(self.request.reference, command, &facts)
            .map_err(|cause| wrong(&cause))
    }

    /// `first` is the container for pytest, unless it is not needed.
    async fn all(self, first: Option<Created>, programs: &[String]) -> Result<SuiteOutcome> {
        let request = self.request;
        let log: SharedLog = Arc::new(Mutex::new(TestLog::create(&request.log())?));
        let mut outcome = SuiteOutcome::none(request.kind);
        let mut steps = Steps::new(&self.context.printer, false).of("Testing");
        let (mut is_good, mut has_run) = match first {
            Some(first) => self.pytest(first, &mut steps, &log, &mut outcome).await?,
            None => (true, false),
        };
        let mut cases = Vec::new();
        for (index, program) in programs.iter().enumerate() {
            if self.began.elapsed() >= request.limit {
                break;
            }
            let path = format!("{WORKFLOW_TESTS_INSIDE}/{program}");
            let created = self.create(index + 1, std::slice::from_ref(&path)).await?;
            child::write(&log, format!("$ {path}\n").as_bytes());
            let began = Instant::now();
            let id = (index + 1).to_string();
            let name = format!("{}: {path} in {}", request.label, request.reference);
            let (ended, why, lines) = self.step(&created, (&id, &name), &mut steps, &log, |_| false).await?;
            let is_passed = ended == ProgramEnd::Code(0);
            (is_good, has_run) = (is_good && is_passed, true);
            outcome.tests += 1;
            outcome.failures += usize::from(!is_passed);
            let case = ProgramCase::new(&path, began.elapsed(), (!is_passed).then_some(why.as_str()), &lines);
            outcome.failed.extend(case.failed());
            cases.push(case);
        }
        steps.finish();
        if !cases.is_empty() {
            let path = request.junit(".programs.xml");
            junit::write(&path, &format!("{} tests of {}", request.kind, request.label), &cases)?;
            outcome.junit.push(path);
        }
        outcome.seconds = self.began.elapsed().as_secs_f64();
        outcome.log = Some(child::close(&log)?);
        outcome.verdict = match (is_good, has_run) {
            (false, _) => SuiteVerdict::Failed,
            (true, false) => SuiteVerdict::NoTests,
            (true, true) => SuiteVerdict::Passed,
        };
        Ok(outcome)
    }

    /// Runs pytest in its container. Whether that ended well, and whether a test ran.
    async fn pytest(
        &self,
        container: Created,
        steps: &mut Steps,
        log: &SharedLog,
        outcome: &mut SuiteOutcome,
    ) -> Result<(bool, bool)> {
        let request = self.request;
        let name = format!(
            "{}: pytest {WORKFLOW_TESTS_INSIDE} in {}",
            request.label, request.reference
        );
        let no_tests = |ended| ended == ProgramEnd::Code(NO_TESTS);
        let (ended, why, _) = self.step(&container, ("0", &name), steps, log, no_tests).await?;
        let is_good = matches!(ended, ProgramEnd::Code(0 | NO_TESTS));
        let mut sum = None;
        if let Some(content) = files::file(self.engine, container.id(), JUNIT_INSIDE, LONGEST_JUNIT).await? {
            let path = request.junit(".xml");
            artifacts::write(&path, content)?;
            sum = JunitSum::read(&path);
            outcome.junit.push(path);
        }
        let has_run = !no_tests(ended) && sum.as_ref().is_none_or(|sum| sum.tests > 0);
        let sum = sum.unwrap_or_default();
        if !is_good && (sum.failures == 0 || ended != ProgramEnd::Code(1)) {
            outcome.problem = Some(match ended {
                ProgramEnd::Code(code) if NOT_RUN.contains(&code) => {
                    format!("the image can't run pytest ({why}): RUN pip install pytest in its Dockerfile")
                }
                _ => format!("pytest: {why}"),
            });
        }
        (outcome.tests, outcome.failures, outcome.failed) = (sum.tests, sum.failures, sum.failed);
        Ok((is_good, has_run))
    }

    /// Runs a container to its end: how it ended, that for people, and its last lines. `is_also_good` says which other end than
    /// code 0 is none to be shown.
    async fn step(
        &self,
        created: &Created,
        (id, name): (&str, &str),
        steps: &mut Steps,
        log: &SharedLog,
        is_also_good: impl Fn(ProgramEnd) -> bool,
    ) -> Result<(ProgramEnd, String, Vec<String>)> {
        steps.running(id, name);
        let began = Instant::now();
        let left = self.request.limit.saturating_sub(self.began.elapsed());
        let ran = tokio::time::timeout(left, self.to_its_end(created, id, steps, log)).await;
        let (ended, said) = match ran {
            Err(_) => (ProgramEnd::TimedOut, None),
            Ok(Ok(ended)) => (ended, None),
            // The engine says by a code that the program is not there.
            Ok(Err(error)) => match i32::from(error.class().status().code()) {
                code if NOT_RUN.contains(&code) => (ProgramEnd::Code(code), Some(error.with_causes())),
                _ => return Err(error),
            },
        };
        let is_good = ended == ProgramEnd::Code(0) || is_also_good(ended);
        let how = match is_good {
            true => StepEnded::Done(began.elapsed().as_secs_f64()),
            false => StepEnded::Failed,
        };
        steps.ended(id, name, how);
        let lines = steps.last_lines(id);
        if !is_good {
            let printer = &self.context.printer;
            printer.excerpt(&step_excerpt(name, &lines));
        }
        Ok((ended, said.unwrap_or_else(|| ended.says(self.request.limit)), lines))
    }

    async fn to_its_end(&self, created: &Created, id: &str, steps: &mut Steps, log: &SharedLog) -> Result<ProgramEnd> {
        let engine = self.engine;
        let heard = Arc::new(OutputCounter::default());
        let mut lines = ContainerLog::of_new(engine, created.id(), false, &heard).await?;
        let exit = foreground::wait(engine, created.id(), "next-exit").await?;
        container::start(engine, created.id(), None).await?;
        while let Some(line) = lines.next().await {
            let line = format!("{}\n", line?);
            child::write(log, line.as_bytes());
            steps.output(id, line.as_bytes());
        }
        // The output ends a moment before the container.
        let status = tokio::time::timeout(Duration::from_secs(60), exit).await;
        let status = status.map_err(|_| Error::failed("the container closed its output, and did not end"))??;
        Ok(ProgramEnd::Code(i32::from(status.code())))
    }
}
