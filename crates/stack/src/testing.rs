//! What test-stack does: runs the suites of images that a registry or an engine has, one after another, and says how they ended.

mod report;

use std::path::PathBuf;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::images::image;
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::{Designation, is_tag};
use dockerutils_core::shell;

use crate::artifacts::Artifacts;
use crate::current::CurrentStack;
use crate::graph::StackImage;
use crate::history::CiVariables;
use crate::pending_tests;
use crate::plan::RemoteImage;
use crate::registry_state::Registries;
use crate::suites::{self, SuiteOutcome, SuiteRequest, SuiteVerdict, TestKind, has_tests};
use crate::tags::StackTarget;
use crate::verdicts::{self, Publication, Verdict, VerdictKey};
use registry_client::Digest;
use report::{SuiteReport, TestReport, TestedImage};

/// How often an image is pulled whose tag moves meanwhile.
const PULLS: usize = 3;

/// What test-stack is asked for.
#[derive(Clone, Debug, Default)]
pub struct TestArgs {
    /// The tag in the registry; else what is on the engine is tested, under the tag of the branch.
    pub tag: Option<String>,
    /// The kinds of tests; without any, basic and integration tests.
    pub kinds: Vec<TestKind>,
    /// The images; without any, all.
    pub only: Vec<String>,
    /// The only plan.
    pub plan: Option<String>,
    /// The directory of the images.
    pub directory: Option<PathBuf>,
    /// Where `artifacts/` and `logs/` are made.
    pub artifacts: Option<PathBuf>,
    /// Workflow tests get the GPUs.
    pub gpu: bool,
    /// Nothing is said in the registry of how the tests ended.
    pub no_verdict: bool,
    /// The file with the key that signs what is said there.
    pub verdict_key: Option<PathBuf>,
}

/// What is tested, before it is done.
#[derive(Debug)]
struct TestPlan<'s> {
    stack: &'s CurrentStack,
    images: Vec<PlannedTest<'s>>,
    kinds: Vec<TestKind>,
    artifacts: Artifacts,
    gpu: bool,
    /// Whether the images are pulled first.
    pulls: bool,
}

/// An image that is tested.
#[derive(Debug)]
struct PlannedTest<'s> {
    /// Its name; with its plan, where there are several.
    label: String,
    image: &'s StackImage,
    plan: &'s str,
    designation: Designation,
}

impl<'s> TestPlan<'s> {
    fn new(context: &Context, stack: &'s CurrentStack, args: &TestArgs) -> Result<Self> {
        for name in &args.only {
            let known = stack.graph.images.iter().map(|image| image.name.as_str());
            if stack.graph.position(name).is_none() {
                return Err(stack.spec.unknown(&["images"], true, name, known, "image"));
            }
        }
        let designation = |target: &StackTarget| Designation {
            name: target.designation.name.clone(),
            tag: args.tag.as_ref().unwrap_or(&target.designation.tag).clone(),
        };
        let mut images: Vec<PlannedTest<'s>> = Vec::new();
        for target in &stack.targets {
            let Some(image) = stack.graph.images.get(target.image) else {
                continue;
            };
            let designation = designation(target);
            let is_wanted = args.only.is_empty() || args.only.contains(&target.name);
            // A tag is of one plan: under it, the image of another is the same.
            if is_wanted && images.iter().all(|other| other.designation != designation) {
                images.push(PlannedTest {
                    label: match args.tag {
                        Some(_) => target.name.clone(),
                        None => target.label(&stack.spec),
                    },
                    image,
                    plan: &target.plan,
                    designation,
                });
            }
        }
        let results = match &args.artifacts {
            Some(directory) => context.working_dir.join(directory),
            None => stack.root.clone(),
        };
        let references = stack.targets.iter().map(|target| designation(target).to_string());
        Ok(Self {
            stack,
            images,
            kinds: match args.kinds.is_empty() {
                true => TestKind::OF_BUILDS.to_vec(),
                false => TestKind::ALL
                    .into_iter()
                    .filter(|kind| args.kinds.contains(kind))
                    .collect(),
            },
            artifacts: Artifacts::at(results).of_images(references),
            gpu: args.gpu,
            pulls: args.tag.is_some(),
        })
    }

    fn request<'r>(&'r self, test: &'r PlannedTest<'_>, kind: TestKind, reference: &'r str) -> SuiteRequest<'r> {
        SuiteRequest {
            spec: &self.stack.spec,
            image: test.image,
            label: &test.label,
            kind,
            reference,
            root: &self.stack.root,
            artifacts: &self.artifacts,
            gpu: self.gpu,
            limit: suites::LIMIT,
        }
    }

    /// The lines that do the same in a shell, in the root of the repository.
    fn lines(&self, context: &Context) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for test in &self.images {
            let reference = test.designation.to_string();
            if self.pulls {
                let words = ["docker", "pull", reference.as_str()];
                lines.push(format!("{}{}", context.docker_prefix()?, shell::join(words)));
            }
            for kind in &self.kinds {
                let request = self.request(test, *kind, &reference);
                lines.extend(suites::lines(&request, context.engine_choice()?, &context.env)?);
            }
        }
        Ok(lines)
    }
}

/// Tests the images of the stack, and prints how that ended.
///
/// # Errors
/// What the spec or git have against it, an engine or a registry that can't be reached. What fails of one image is in its report, and
/// the others are tested all the same.
pub fn test_stack(context: &Context, args: &TestArgs) -> Result<ExitStatus> {
    if let Some(tag) = args.tag.as_deref().filter(|tag| !is_tag(tag)) {
        return Err(Error::usage(format!("{tag:?} can't be a tag"))
            .hint("only the tag, such as 2026.10-main: the repositories are in spec.yml"));
    }
    let stack = CurrentStack::read(
        context,
        args.directory.as_deref(),
        args.plan.as_deref(),
        args.tag.is_some(),
    )?;
    let plan = TestPlan::new(context, &stack, args)?;
    stack.notes.iter().for_each(|note| context.printer.warning(note));
    if context.global.dry_run {
        context.printer.plan(&plan.lines(context)?)?;
        return Ok(ExitStatus::SUCCESS);
    }
    // Before an hour of tests: a key that can't be read.
    let key = match args.no_verdict {
        true => None,
        false => VerdictKey::of(&context.env, args.verdict_key.as_deref(), &context.working_dir)?,
    };
    let says = (!args.no_verdict).then_some(key.as_ref());
    let images = context.block_on(run(context, &plan, says))?;
    let report = TestReport {
        tag: args.tag.clone(),
        images,
    };
    report.show(&context.printer)
}

/// `says` is whether something is said in the registry, and with which key.
async fn run(context: &Context, plan: &TestPlan<'_>, says: Option<Option<&VerdictKey>>) -> Result<Vec<TestedImage>> {
    let engine = context.connect().await?;
    let logins = ClientConfig::of(&context.env)?;
    let registries = match plan.pulls {
        true => {
            let names = plan.images.iter().map(|test| test.designation.name.as_str());
            Some(Registries::reach(names, &logins, &context.env).await?)
        }
        false => None,
    };
    let warnings = registries.iter().flat_map(|registries| &registries.warnings);
    warnings.for_each(|warning| context.printer.warning(warning));
    let site = TestSite {
        context,
        plan,
        engine: &engine,
        logins: &logins,
        registries: registries.as_ref(),
        says,
        run: CiVariables::read(&context.env).and_then(|ci| ci.run),
    };
    Ok(match plan.stack.spec.parallel {
        true => registry_client::many(&plan.images, |test| site.image(test)).await,
        false => {
            let mut images = Vec::new();
            for test in &plan.images {
                images.push(site.image(test).await);
            }
            images
        }
    })
}

/// Where the images are tested.
struct TestSite<'s> {
    context: &'s Context,
    plan: &'s TestPlan<'s>,
    engine: &'s Engine,
    logins: &'s ClientConfig,
    /// Where the images are pulled from; `None` where what the engine has is tested.
    registries: Option<&'s Registries>,
    /// Whether the registry is told how the tests ended, and with which key that is signed.
    says: Option<Option<&'s VerdictKey>>,
    /// The page of the run of CI.
    run: Option<String>,
}

impl TestSite<'_> {
    /// Tests an image. What goes wrong is printed, and is in the report.
    async fn image(&self, test: &PlannedTest<'_>) -> TestedImage {
        let printer = &self.context.printer;
        let reference = test.designation.to_string();
        let mut tested = TestedImage::new(&test.image.name, test.plan, &reference);
        let there = match self.image_there(&reference, &test.image.name).await {
            Ok(there) => there,
            Err(error) => {
                printer.error(&error);
                tested.fails(&error);
                return tested;
            }
        };
        tested.digest = there.as_ref().map(|there| there.manifest.clone());
        tested.manual = suites::manual_tests(test.image);
        for path in &tested.manual {
            printer.note(&format!(
                "{}: to be looked at by a person: {}",
                test.label,
                path.display()
            ));
        }
        let held = image::find(self.engine, &reference).await.ok().flatten();
        for kind in &self.plan.kinds {
            let request = self.plan.request(test, *kind, &reference);
            let ran = suites::run(self.context, self.engine, &request).await;
            let (outcome, error) = match ran {
                Ok(outcome) => {
                    let error = outcome.error(&test.label, &reference);
                    (outcome, error)
                }
                Err(error) => (SuiteOutcome::not_run(*kind, &error), Some(error)),
            };
            error.iter().for_each(|error| printer.error(error));
            tested.suites.push(SuiteReport::new(outcome, error.as_ref()));
        }
        if let Some(there) = &there {
            let same = async {
                let id = held.map(|held| held.id).unwrap_or_default();
                image::check_same(self.engine, &reference, &id).await?;
                self.tell(test, there, &tested).await
            };
            match same.await {
                Ok(told) => tested.verdicts = told,
                Err(error) => {
                    printer.error(&error);
                    tested.fails(&error);
                }
            }
        }
        tested
    }

    /// Tells the registry how the tests of an image that it has ended, and has the next plan not run them again if they ended well.
    /// How much was told.
    async fn tell(&self, test: &PlannedTest<'_>, there: &RemoteImage, tested: &TestedImage) -> Result<usize> {
        let reference = test.designation.to_string();
        let outcomes = || tested.suites.iter().map(|suite| &suite.outcome);
        let is_good = |outcome: &SuiteOutcome| matches!(outcome.verdict, SuiteVerdict::Passed | SuiteVerdict::NoTests);
        let all_of_a_build = TestKind::OF_BUILDS
            .iter()
            .all(|kind| outcomes().any(|outcome| outcome.kind == *kind && is_good(outcome)));
        for inputs in there.inputs.iter().filter(|_| all_of_a_build) {
            let key = pending_tests::key(&test.designation.name, &inputs.digest());
            pending_tests::end(&self.context.env, &key)?;
        }
        let (Some(registries), Some(key)) = (self.registries, self.says) else {
            return Ok(0);
        };
        let (spec, image) = (&self.plan.stack.spec, test.image);
        let said = outcomes().filter_map(|outcome| {
            let has_folder = has_tests(spec, &image.name, &image.directory, outcome.kind);
            // What is checked out here may have lost its tests: that says nothing about the image.
            let is_said = has_folder || outcome.verdict != SuiteVerdict::NoTests;
            Verdict::of(outcome, has_folder, self.run.as_deref()).filter(|_| is_said)
        });
        let said: Vec<Verdict> = said.collect();
        let place = registries.place(&reference)?;
        let wrong = |cause| Error::failed(format!("{reference} has no valid digest in its registry")).because(cause);
        let digest = Digest::parse(&there.manifest).map_err(wrong)?;
        match verdicts::publish(place.registry, &place.repository, &digest, &said, key).await? {
            Publication::Attached(attached) => Ok(attached.len()),
            Publication::NotTaken(why) => {
                Err(why.hint("the registry takes no verdicts: test-stack --no-verdict leaves it alone"))
            }
        }
    }

    /// Has the image on the engine: from the registry, which then has this very image, or as it is on the engine.
    async fn image_there(&self, reference: &str, name: &str) -> Result<Option<RemoteImage>> {
        let printer = &self.context.printer;
        let Some(registries) = self.registries else {
            return match image::find(self.engine, reference).await? {
                Some(_) => Ok(None),
                None => Err(
                    Error::failed(format!("{} has no image {reference}", self.engine.choice().engine())).hint(hint!(
                        "build it: build-stack {} --no-push; or name a tag that is in the registry: test-stack TAG",
                        name
                    )),
                ),
            };
        };
        for _ in 0..PULLS {
            let Some(there) = registries.image(reference).await? else {
                return Err(Error::failed(format!("there is no {reference} in its registry"))
                    .hint("plan-stack --tags lists the tags that are there"));
            };
            image::pull(self.engine, self.logins, reference, None, printer).await?;
            // Somebody may have pushed meanwhile.
            if !image::is_other(self.engine, reference, &there.manifest).await? {
                printer.note(&format!("testing {reference}@{}", there.manifest));
                return Ok(Some(there));
            }
        }
        Err(
            Error::failed(format!("{reference} is another image each time that it is pulled"))
                .hint("somebody pushes to this tag: run it again when that is done"),
        )
    }
}
