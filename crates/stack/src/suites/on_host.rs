//! Suites that run on this machine: pytest, then the executable files, one after another.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dockerutils_core::cli::Context;
use dockerutils_core::config::trust::Caller;
use dockerutils_core::docker::connect::dock_engine::{ENGINE_VARIABLES, variables};
use dockerutils_core::docker::connect::endpoint::{Choice, Origin};
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::output::progress::steps::{Ended as StepEnded, Steps};
use dockerutils_core::output::step_excerpt;
use dockerutils_core::shell;
use tokio::process::Command;

use super::child::{self, ProgramEnd, SharedLog};
use super::engine_lock::EngineLock;
use super::junit::{self, JunitSum, ProgramCase};
use super::pytest::{NO_TESTS, has_python, is_executable, is_pytest_s, pytest};
use super::test_log::TestLog;
use super::{CONFTEST, SuiteOutcome, SuiteRequest, SuiteVerdict};
use crate::verdicts::KEY_VARIABLE;

/// How often the agent of a dock is asked something while tests run, so that it stays.
const ALIVE: Duration = Duration::from_secs(60);

/// What is started for a suite, in what surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuitePlan {
    /// Where everything is started: the root of the repository.
    root: PathBuf,
    /// The variables that are set.
    environment: Vec<(String, String)>,
    /// The variables that are unset.
    cleared: Vec<&'static str>,
    pub steps: Vec<SuiteStep>,
}

/// A program of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteStep {
    /// Its name for people: that of pytest, or the path of the file, seen from the root.
    pub name: String,
    /// The words: the program, and its arguments.
    pub words: Vec<String>,
    /// Whether it is pytest, which finds its tests by itself.
    pub is_pytest: bool,
}

/// What is directly in a folder, by its names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The executable files that are directly in a folder, by their names.
fn programs(folder: &Path) -> Vec<PathBuf> {
    let mut found = files(folder);
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && !is_pytest_s(&name) && is_executable(path)
    });
    found
}

impl SuitePlan {
    /// What is started for the tests of a kind; nothing if there are none on this machine.
    ///
    /// # Errors
    /// pytest is needed, and not there; paths that are not UTF-8; an engine that variables can't name.
    pub fn new(request: &SuiteRequest<'_>, engine: &Choice, env: &Env) -> Result<Self> {
        let root = request.root;
        let mut files: Vec<PathBuf> = request.folders().iter().flat_map(|folder| files(folder)).collect();
        files.extend([
            root.join(CONFTEST),
            root.join(request.image.directory.with_file_name(CONFTEST)),
        ]);
        Caller::of_process(env).check(root, &files)?;
        Self::with(request, engine, env, pytest)
    }

    /// The plan, with pytest as `pytest` finds it.
    fn with(
        request: &SuiteRequest<'_>,
        engine: &Choice,
        env: &Env,
        pytest: impl Fn(&Env) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let root = request.root;
        let folders = request.folders();
        let mut steps = Vec::new();
        let shown: Vec<String> = folders
            .iter()
            .map(|folder| relative(folder, root))
            .collect::<Result<_>>()?;
        if folders.iter().any(|folder| has_python(folder)) {
            let mut words = pytest(env)?;
            words.push(format!("--rootdir={}", relative(root, Path::new(""))?));
            words.push(format!(
                "--junitxml={}",
                relative(&request.junit(".xml"), Path::new(""))?
            ));
            words.extend(shown.iter().cloned());
            steps.push(SuiteStep {
                name: format!("pytest {}", shell::join(&shown)),
                words,
                is_pytest: true,
            });
        }
        for program in folders.iter().flat_map(|folder| programs(folder)) {
            let name = relative(&program, root)?;
            steps.push(SuiteStep {
                words: vec![relative(&program, Path::new(""))?],
                name,
                is_pytest: false,
            });
        }
        let python_path = match env.non_empty("PYTHONPATH") {
            Some(others) => format!("{}:{others}", root.display()),
            None => root.display().to_string(),
        };
        let mut environment = vec![
            ("TEST_IMAGE".to_owned(), request.reference.to_owned()),
            ("PYTHONPATH".to_owned(), python_path),
            ("PYTHONUNBUFFERED".to_owned(), "TRUE".to_owned()),
        ];
        // Compiled files beside the tests would be in the context of the next build.
        if env.get("PYTHONDONTWRITEBYTECODE").is_none() {
            environment.push(("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()));
        }
        let engine = leading(engine)?;
        let cleared = ENGINE_VARIABLES
            .into_iter()
            .filter(|name| !engine.is_empty() && engine.iter().all(|(set, _)| set != name))
            // With the key, a test could sign what it likes.
            .chain([KEY_VARIABLE])
            .filter(|name| env.get(name).is_some())
            .collect();
        environment.extend(engine.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(Self {
            root: root.to_owned(),
            environment,
            cleared,
            steps,
        })
    }

    /// The lines that do the same in a shell, in the root of the repository.
    pub fn lines(&self) -> Vec<String> {
        let assigned = |(name, value): &(String, String)| format!("{name}={} ", shell::quote(value));
        let environment: String = self.environment.iter().map(assigned).collect();
        let cleared: String = self.cleared.iter().map(|name| format!("-u {name} ")).collect();
        let env = match cleared.is_empty() {
            true => "",
            false => "env ",
        };
        let steps = self.steps.iter();
        steps
            .map(|step| format!("{env}{cleared}{environment}{}", shell::join(&step.words)))
            .collect()
    }

    fn command(&self, step: &SuiteStep, env: &Env) -> Command {
        let (program, arguments) = step
            .words
            .split_first()
            .map_or(("", [].as_slice()), |(first, rest)| (first, rest));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .envs(env.iter());
        self.cleared.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("PWD", &self.root);
        command
    }
}

/// The variables that lead any client of Docker to the engine. Where the environment does so, they stay as they are; a docker context
/// is known to docker's own client only.
fn leading(choice: &Choice) -> Result<Vec<(&'static str, String)>> {
    match choice.origin {
        Origin::Default | Origin::Host => Ok(Vec::new()),
        Origin::Context(_) | Origin::Dock(_) => variables(&choice.endpoint),
    }
}

/// A path as text, seen from another where it is in that.
fn relative(path: &Path, from: &Path) -> Result<String> {
    let inside = path
        .strip_prefix(from)
        .ok()
        .filter(|inside| !inside.as_os_str().is_empty());
    let shown = inside.unwrap_or(path);
    shown
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("the path {} is not UTF-8", path.display())).hint("give it a name that is"))
}

/// Runs the suite.
///
/// # Errors
/// Those of [`SuitePlan::new`], files that can't be written, programs that can't be started.
pub(super) async fn run(context: &Context, engine: &Engine, request: &SuiteRequest<'_>) -> Result<SuiteOutcome> {
    let plan = SuitePlan::new(request, engine.choice(), &context.env)?;
    if plan.steps.is_empty() {
        return Ok(SuiteOutcome::none(request.kind));
    }
    let lock = match request.spec.parallel {
        true => None,
        false => Some(EngineLock::take(context, engine).await?),
    };
    let running = HostSuite {
        context,
        request,
        plan: &plan,
        lock,
        log: Arc::new(Mutex::new(TestLog::create(&request.log())?)),
        began: Instant::now(),
    };
    let has_agent = context.engine()?.agent.is_some();
    tokio::select! {
        outcome = running.all() => outcome,
        never = alive(engine, has_agent) => match never {},
    }
}

/// Asks the engine something from time to time: the agent of a dock ends if nobody needs it, and a test may compute for long.
async fn alive(engine: &Engine, has_agent: bool) -> std::convert::Infallible {
    loop {
        match has_agent {
            true => tokio::time::sleep(ALIVE).await,
            false => std::future::pending().await,
        }
        // The tests notice a broken link themselves.
        let _ = engine.version().await;
    }
}

/// A suite that runs.
struct HostSuite<'r> {
    context: &'r Context,
    request: &'r SuiteRequest<'r>,
    plan: &'r SuitePlan,
    /// `None` where suites may run side by side.
    lock: Option<EngineLock>,
    log: SharedLog,
    began: Instant,
}

impl HostSuite<'_> {
    async fn all(self) -> Result<SuiteOutcome> {
        let mut outcome = SuiteOutcome::none(self.request.kind);
        let mut steps = Steps::new(&self.context.printer, false).of("Testing");
        let mut cases = Vec::new();
        let (mut is_good, mut has_run) = (true, false);
        for (index, step) in self.plan.steps.iter().enumerate() {
            let id = index.to_string();
            let name = format!("{}: {}", self.request.label, step.name);
            steps.running(&id, &name);
            let began = Instant::now();
            let junit = self.request.junit(".xml");
            if step.is_pytest {
                // That of another run would be taken for this one's. Mostly there is none.
                let _ = fs::remove_file(&junit);
            } else {
                child::write(&self.log, format!("$ {}\n", step.name).as_bytes());
            }
            let left = self.request.limit.saturating_sub(self.began.elapsed());
            let command = self.plan.command(step, &self.context.env);
            let program = Path::new(step.words.first().map(String::as_str).unwrap_or_default());
            let shown = |piece: &[u8]| steps.output(&id, piece);
            let lock = self.lock.as_ref().map(EngineLock::file);
            let ended = child::run(command, program, left, &self.log, lock, shown).await;
            let (ended, said) = match ended {
                // A file without a first line that names an interpreter fails as a test.
                Err(error) if !step.is_pytest => (ProgramEnd::Code(126), Some(error.with_causes())),
                ended => (ended?, None),
            };
            let is_passed = matches!(
                (ended, step.is_pytest),
                (ProgramEnd::Code(0), _) | (ProgramEnd::Code(NO_TESTS), true)
            );
            let took = began.elapsed();
            let how = if is_passed {
                StepEnded::Done(took.as_secs_f64())
            } else {
                StepEnded::Failed
            };
            steps.ended(&id, &name, how);
            let lines = steps.last_lines(&id);
            is_good &= is_passed;
            let why = said.unwrap_or_else(|| ended.says(self.request.limit));
            if !is_passed {
                self.context.printer.excerpt(&step_excerpt(&name, &lines));
            }
            if step.is_pytest {
                let sum = JunitSum::read(&junit);
                has_run |= ended != ProgramEnd::Code(NO_TESTS) && sum.as_ref().is_none_or(|sum| sum.tests > 0);
                outcome.junit.extend(sum.is_some().then_some(junit));
                let sum = sum.unwrap_or_default();
                if !is_passed && (sum.failures == 0 || !matches!(ended, ProgramEnd::Code(1))) {
                    outcome.problem = Some(format!("pytest: {why}"));
                }
                outcome.tests += sum.tests;
                outcome.failures += sum.failures;
                outcome.failed.extend(sum.failed);
            } else {
                has_run = true;
                let case = ProgramCase::new(&step.name, took, (!is_passed).then_some(why.as_str()), &lines);
                outcome.tests += 1;
                outcome.failures += usize::from(!is_passed);
                outcome.failed.extend(case.failed());
                cases.push(case);
            }
            if ended == ProgramEnd::TimedOut {
                outcome.problem = Some(ended.says(self.request.limit));
                break;
            }
        }
        steps.finish();
        if !cases.is_empty() {
            let path = self.request.junit(".programs.xml");
            junit::write(
                &path,
                &format!("{} tests of {}", self.request.kind, self.request.label),
                &cases,
            )?;
            outcome.junit.push(path);
        }
        outcome.seconds = self.began.elapsed().as_secs_f64();
        outcome.log = Some(child::close(&self.log)?);
        outcome.verdict = match (is_good, has_run) {
            (false, _) => SuiteVerdict::Failed,
            (true, false) => SuiteVerdict::NoTests,
            (true, true) => SuiteVerdict::Passed,
        };
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dockerutils_core::docker::connect::endpoint::Endpoint;

    use super::*;
    use crate::artifacts::Artifacts;
    use crate::graph::Graph;
    use crate::spec::Spec;
    use crate::suites::{LIMIT, TestKind};

    struct Bench {
        home: tempfile::TempDir,
        spec: Spec,
        graph: Graph,
    }

    const HERE: Choice = Choice {
        endpoint: Endpoint::Unix(PathBuf::new()),
        origin: Origin::Default,
    };

    impl Bench {
        fn new(files: &[(&str, u32)]) -> Self {
            let home = tempfile::tempdir().unwrap();
            for (path, mode) in [("images/base/Dockerfile", 0o644)].iter().chain(files) {
                let path = home.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "FROM scratch\n").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            let text = "images: {base: {image_name: r.example/t/base, integration_tests: true}}\n";
            let spec = Spec::parse(text, Path::new(crate::spec::FILE)).unwrap();
            let graph = Graph::read(&spec, &home.path().join("images")).unwrap();
            Self { home, spec, graph }
        }

        fn plan(&self, kind: TestKind, engine: &Choice, env: &Env) -> SuitePlan {
            let (root, artifacts) = (self.home.path(), Artifacts::at("/results"));
            let request = SuiteRequest {
                spec: &self.spec,
                image: &self.graph.images[0],
                label: "base",
                kind,
                reference: "r.example/t/base:1-main",
                root,
                artifacts: &artifacts,
                gpu: false,
                limit: LIMIT,
            };
            SuitePlan::with(&request, engine, env, |_| Ok(vec!["/bin/pytest".to_owned()])).unwrap()
        }
    }

    #[test]
    fn pytest_gets_the_folders_that_are_there_and_executable_files_follow() {
        let bench = Bench::new(&[
            ("images/tests_common/deep/test_x.py", 0o644),
            ("images/base/test/test_a.py", 0o755),
            ("images/base/test/check.sh", 0o755),
            ("images/base/test/another check", 0o755),
            ("images/base/test/data.sh", 0o644),
            ("images/base/test/.hidden", 0o755),
            ("images/base/test/lib/helper.sh", 0o755),
            ("images/base/integration_tests/probe", 0o755),
        ]);
        let root = bench.home.path().display().to_string();
        let plan = bench.plan(TestKind::Basic, &HERE, &Env::default());
        let given = format!(
            "TEST_IMAGE=r.example/t/base:1-main PYTHONPATH={root} PYTHONUNBUFFERED=TRUE PYTHONDONTWRITEBYTECODE=1"
        );
        assert_eq!(
            plan.lines(),
            [
                format!(
                    "{given} /bin/pytest --rootdir={root} --junitxml=/results/artifacts/r.example-t-base-1-main.basic-tests.xml \
                     images/tests_common images/base/test"
                ),
                format!("{given} '{root}/images/base/test/another check'"),
                format!("{given} {root}/images/base/test/check.sh"),
            ]
        );
        assert_eq!(plan.steps[2].name, "images/base/test/check.sh");
        let plan = bench.plan(TestKind::Integration, &HERE, &Env::default());
        assert_eq!(plan.steps.len(), 1, "{plan:?}");
        assert_eq!(plan.steps[0].name, "images/base/integration_tests/probe");
    }

    #[test]
    fn without_a_file_for_it_pytest_is_not_needed() {
        let bench = Bench::new(&[("images/tests_common/README", 0o644)]);
        assert_eq!(bench.plan(TestKind::Basic, &HERE, &Env::default()).steps, []);
    }

    #[test]
    fn any_client_of_docker_is_led_to_the_engine_and_variables_of_the_user_stay() {
        let bench = Bench::new(&[("images/base/test/check", 0o755)]);
        let far = Choice {
            endpoint: Endpoint::Unix("/run/far.sock".into()),
            origin: Origin::Dock("far".to_owned()),
        };
        let env = Env::from_pairs([
            ("PYTHONPATH", "/mine"),
            ("PYTHONDONTWRITEBYTECODE", ""),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_HOST", "tcp://other"),
        ]);
        let line = bench.plan(TestKind::Basic, &far, &env).lines().remove(0);
        let root = bench.home.path().display();
        let expected = format!(
            "env -u DOCKER_TLS_VERIFY TEST_IMAGE=r.example/t/base:1-main PYTHONPATH={root}:/mine PYTHONUNBUFFERED=TRUE \
             DOCKER_HOST=unix:///run/far.sock {root}/images/base/test/check"
        );
        assert_eq!(line, expected);
        // The environment leads there by itself.
        let line = bench.plan(TestKind::Basic, &HERE, &env).lines().remove(0);
        assert!(!line.contains("DOCKER_"), "{line}");
    }

    #[test]
    fn no_test_sees_the_key_that_signs_its_verdict() {
        let bench = Bench::new(&[("images/base/test/check", 0o755)]);
        let env = Env::from_pairs([(KEY_VARIABLE, "the key"), ("PATH", "/bin")]);
        let plan = bench.plan(TestKind::Basic, &HERE, &env);
        let line = plan.lines().remove(0);
        assert!(
            line.starts_with(&format!("env -u {KEY_VARIABLE} TEST_IMAGE=")),
            "{line}"
        );
        let step = plan.steps.first().unwrap();
        let command = plan.command(step, &env);
        let given: Vec<_> = command
            .as_std()
            .get_envs()
            .filter(|(_, value)| value.is_some())
            .collect();
        assert!(given.iter().any(|(name, _)| *name == "PATH"), "{given:?}");
        assert!(given.iter().all(|(name, _)| *name != KEY_VARIABLE), "{given:?}");
    }
}
