//! Building a project's images: which ones, in which order, and the results.

mod builds;
mod display;
mod environment;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bollard::query_parameters::RemoveImageOptions;
use serde::Serialize;

use crate::config::project::{Project, designated, dotted};
use crate::config::settings::Settings;
use crate::config::stack;
use crate::context::Context;
use crate::docker::build::build_needs::is_folder;
use crate::docker::build::builder::{Builder, builder_of};
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::events::BuildFailure;
use crate::docker::build::pip_conf::{self, Linked};
use crate::docker::build::request::{BuildRequest, link_target};
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::endpoint::Choice;
use crate::docker::connect::engine::{Engine, found};
use crate::docker::connect::locality::{self, Locality, LocalityVerdict};
use crate::docker::options::build_options::{BuildOptionError, BuildOptions};
use crate::docker::options::flags::parse_bool;
use crate::env::{Env, LOCAL_ENGINE};
use crate::error::{Class, Error, ErrorDocument, ErrorOf, ExitStatus, Result, WithFailures};
use crate::hint;
use crate::naming::{Designation, canonical};
use crate::ops::run_records::connect_and_remind;
use crate::ops::{check, genversion};
use crate::output::table::{Align, Table};
use crate::output::{Printer, size, visible};
use crate::project_file;
use crate::shell;
pub use builds::{BuildLog, Builds, FailedBuild};

/// Words of a shell that mean nothing without one.
const SHELL_WORDS: &[&str] = &["&&", "||", "|", ">", ">>", "<", ";", "&", "2>", "2>&1", "|&"];

/// What build-image is asked for.
#[derive(Clone, Debug, Default)]
pub struct BuildArgs {
    /// An image type, or `all`.
    pub image: String,
    /// Build `base` as well.
    pub force_base: bool,
    /// First build the project's images that it is FROM.
    pub with_bases: bool,
    /// Another name for the image.
    pub image_name: Option<String>,
    /// Another tag for the image.
    pub image_tag: Option<String>,
    /// Pull the images that it is FROM.
    pub pull: bool,
    /// Images built side by side; by default the number of processors, four at most.
    pub jobs: Option<usize>,
}

/// What is about to be built.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    /// Sorted: each image comes after the images that it needs.
    pub images: Vec<ImagePlan>,
    /// Images built side by side.
    pub jobs: usize,
    /// Sentences about names that had to be changed.
    pub notes: Vec<String>,
    /// The prefix of `docker` command lines, with its trailing blank: variables that name the engine.
    pub docker_prefix: String,
    way_to_root: String,
    /// Contexts that get their `pip.conf` of its template, seen from the root.
    templates: Vec<PathBuf>,
}

/// One image of a [`BuildPlan`].
#[derive(Clone, Debug)]
pub struct ImagePlan {
    pub image: String,
    /// What it is named.
    pub designation: Designation,
    /// Images of the plan, by position, that must be built first.
    pub needs: Vec<usize>,
    /// What is done, in this order.
    pub steps: Vec<PlanStep>,
    /// Image types of the project that it is made of, with the names that its Dockerfile gives them.
    pub others: Vec<(String, String)>,
}

/// One thing that is done for an image.
#[derive(Clone, Debug)]
pub enum PlanStep {
    /// A script of the project, without a shell, in its root.
    Script {
        /// `pre-build-script` or `post-build-script`.
        kind: &'static str,
        /// Program and arguments.
        words: Vec<String>,
    },
    /// A build.
    Build {
        /// The arguments of the equivalent `docker build`.
        words: Vec<String>,
        /// What they mean.
        request: Box<BuildRequest>,
    },
}

/// What came out for one image.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImageReport {
    /// Name and tag.
    pub image: String,
    /// `built`, `cached`, `failed` or `skipped`.
    pub status: BuildStatus,
    #[serde(flatten)]
    pub numbers: BuildNumbers,
    /// Bytes of build context that were sent.
    pub context_bytes: u64,
    /// Why it failed, or was skipped.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ImageFailure>,
}

/// How a build went, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BuildNumbers {
    /// The image's ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How long it took.
    pub seconds: f64,
    /// Steps of the Dockerfile.
    pub steps: usize,
    /// Those of them that came from the cache.
    pub cached_steps: usize,
}

/// Why an image could not be built.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFailure {
    /// The builder's message, or whose else it is.
    #[serde(flatten)]
    pub error: ErrorDocument,
    /// The last lines of the step that failed, and the Dockerfile around its line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpts: Vec<String>,
}

/// The outcome for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildStatus {
    /// At least one step ran.
    #[default]
    Built,
    /// All steps came from the cache.
    Cached,
    /// A step or script failed.
    Failed,
    /// An image that it needs failed.
    Skipped,
}

impl BuildStatus {
    const fn word(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl BuildPlan {
    /// Plans a build of one image, of it and `base`, or of `all`.
    ///
    /// # Errors
    /// No such image, a wrong configuration, images that need each other in a circle.
    pub fn new(project: &Project, args: &BuildArgs, env: &Env) -> Result<Self> {
        let all = args.image == "all";
        if all && (args.image_name.is_some() || args.image_tag.is_some()) {
            return Err(Error::usage("-i and -t name one image, but all are to be built")
                .hint("put name and tag into docker/dockerutils.cfg, or build one image"));
        }
        let types = project.image_types();
        let mut wanted: Vec<String> = if all {
            if types.is_empty() {
                return Err(
                    Error::usage(format!("{} has no image to build", project.root().display())).hint(hint!(
                        "write {}",
                        project.images_dir().join("dev/Dockerfile").display().to_string()
                    )),
                );
            }
            types.to_vec()
        } else {
            project.buildable(&args.image)?;
            let base =
                (args.force_base && args.image != "base" && types.iter().any(|name| name == "base")).then_some("base");
            base.into_iter()
                .chain([args.image.as_str()])
                .map(str::to_owned)
                .collect()
        };
        let made = made_images(project)?;
        let mut notes = Vec::new();
        let mut images = Vec::new();
        let mut sources = Vec::new();
        // It grows while what images are made of is found.
        let mut next = 0;
        while let Some(image) = wanted.get(next).cloned() {
            next += 1;
            let named = if image == args.image {
                (args.image_name.as_deref(), args.image_tag.as_deref())
            } else {
                (None, None)
            };
            let (mut plan, dockerfile, said) = image_plan(project, &image, named, args, env)?;
            plan.others = types_of(&made, &dockerfile);
            if args.with_bases {
                let others = plan.others.iter().map(|(other, _)| other);
                let others: Vec<String> = others.filter(|other| !wanted.contains(other)).cloned().collect();
                wanted.extend(others);
            }
            notes.extend(said);
            let file = project.dockerfile(&image)?;
            let others = other_tags(&made, &dockerfile, args.image_tag.as_deref());
            notes.extend(others.iter().map(|other| other.sentence(&file)));
            images.push(plan);
            sources.push(dockerfile);
        }
        let mut plan = Self {
            images,
            jobs: args.jobs.unwrap_or_else(default_jobs).max(1),
            notes,
            docker_prefix: String::new(),
            way_to_root: project.way_to_root(),
            templates: Vec::new(),
        };
        // The classic builder makes all stages, needed or not.
        let makes_all = env.get("DOCKER_BUILDKIT").and_then(parse_bool) == Some(false);
        plan.order(&sources, makes_all, args.force_base && !all)?;
        plan.templates = plan.made_of_templates(project)?;
        Ok(plan)
    }

    /// The contexts that get their `pip.conf` of its template.
    fn made_of_templates(&self, project: &Project) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for step in self.images.iter().flat_map(|image| &image.steps) {
            let PlanStep::Build { request, .. } = step else {
                continue;
            };
            let seen = request.context.strip_prefix(project.root()).unwrap_or(&request.context);
            if !found.iter().any(|known| known == seen) {
                project.check_owners(&[seen.join(pip_conf::TEMPLATE)])?;
                if pip_conf::is_made(&request.context)? {
                    found.push(seen.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// Sets which images each one needs, and sorts them accordingly. With `base_first`, of two images the
    /// first is base.
    fn order(&mut self, dockerfiles: &[Dockerfile], makes_all: bool, base_first: bool) -> Result<()> {
        let mut makers: BTreeMap<String, usize> = BTreeMap::new();
        for (index, image) in self.images.iter().enumerate() {
            for step in &image.steps {
                if let PlanStep::Build { request, .. } = step {
                    makers.extend(request.tags.iter().map(|tag| (canonical(tag), index)));
                }
            }
        }
        let mut needs: Vec<Vec<usize>> = Vec::new();
        for (index, (image, file)) in self.images.iter().zip(dockerfiles).enumerate() {
            let mut wanted: BTreeSet<usize> = BTreeSet::new();
            if makes_all {
                wanted.extend(file.images().filter_map(|name| makers.get(&canonical(name))));
            }
            for target in image.targets() {
                wanted.extend(
                    file.images_for(target)
                        .into_iter()
                        .filter_map(|name| makers.get(&canonical(name))),
                );
                // Its base may have left it something to do, by ONBUILD.
                let base = file.base_for(target).and_then(|base| makers.get(&canonical(base)));
                if let Some((base, its_file)) = base.and_then(|base| self.images.get(*base).zip(dockerfiles.get(*base)))
                {
                    let left = its_file.images_left_to(base.target(), file);
                    wanted.extend(left.into_iter().filter_map(|name| makers.get(&canonical(name))));
                }
            }
            wanted.remove(&index);
            needs.push(wanted.into_iter().collect());
        }
        if let (true, [base, image]) = (base_first, needs.as_mut_slice())
            && base.is_empty()
            && image.is_empty()
        {
            // A FROM may name base in a way that can't be read here.
            image.push(0);
        }
        let order = schedule::order(&needs).map_err(|circle| {
            let names: Vec<&str> = circle
                .iter()
                .filter_map(|index| self.images.get(*index))
                .map(|image| image.image.as_str())
                .collect();
            Error::usage(format!("images need each other in a circle: {}", names.join(" -> ")))
                .hint("look at the FROM lines of their Dockerfiles")
        })?;
        let position: BTreeMap<usize, usize> = order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        self.images = order
            .iter()
            .filter_map(|old| {
                let mut image = self.images.get(*old)?.clone();
                image.needs = needs
                    .get(*old)?
                    .iter()
                    .filter_map(|need| position.get(need).copied())
                    .collect();
                Some(image)
            })
            .collect();
        Ok(())
    }

    /// The lines that say what is done, to be pasted where we were called: docker commands and scripts.
    pub fn lines(&self) -> Vec<String> {
        let steps = self
            .images
            .iter()
            .flat_map(|image| &image.steps)
            .map(|step| format!("{}{}", self.way_to_root, step.line(&self.docker_prefix)));
        let (before, after) = self.lines_around();
        before.into_iter().chain(steps).chain(after).collect()
    }

    /// What a docker client needs before and after the lines of the plan, and the engine gets without it: `pip.conf`.
    fn lines_around(&self) -> (Vec<String>, Vec<String>) {
        let line = |words: &[&str], folder: &Path, names: &[&str]| {
            let files = names.iter().map(|name| folder.join(name).display().to_string());
            let words = words.iter().map(|word| (*word).to_owned()).chain(files);
            format!("{}{}", self.way_to_root, shell::join(words.collect::<Vec<_>>()))
        };
        let folders = self.templates.iter();
        let before = folders.map(|folder| line(&["cp", "-p"], folder, &[pip_conf::TEMPLATE, pip_conf::NAME]));
        let after = self
            .templates
            .iter()
            .map(|folder| line(&["rm"], folder, &[pip_conf::NAME]));
        (before.collect(), after.collect())
    }
}

impl ImagePlan {
    /// The stages that are built for it; `None` is the last stage of the Dockerfile.
    fn targets(&self) -> impl Iterator<Item = Option<&str>> {
        self.steps.iter().filter_map(|step| match step {
            PlanStep::Build { request, .. } => Some(request.options.target.as_deref()),
            PlanStep::Script { .. } => None,
        })
    }

    /// The stage that is the image itself: a builder stage is built before it.
    fn target(&self) -> Option<&str> {
        self.targets().last().flatten()
    }
}

impl PlanStep {
    /// The line that says what is done in the root.
    fn line(&self, docker_prefix: &str) -> String {
        match self {
            Self::Script { words, .. } => shell::join(words),
            Self::Build { words, .. } => format!("{docker_prefix}{}", shell::join(words)),
        }
    }
}

/// How many images are built side by side, where nothing else is said: the number of processors, at most 4.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(4)
}

fn image_plan(
    project: &Project,
    image: &str,
    (name, tag): (Option<&str>, Option<&str>),
    args: &BuildArgs,
    env: &Env,
) -> Result<(ImagePlan, Dockerfile, Vec<String>)> {
    let settings = project.settings(image);
    let own = project.designation(image)?;
    let named = match (name, tag) {
        (None, None) => own,
        _ => designated(
            name.unwrap_or(&own.designation.name),
            tag.unwrap_or(&own.designation.tag),
        ),
    };
    let designation = named.designation;
    let pull = args.pull || (args.force_base && settings.switch("pull_FROM_on_force")?.unwrap_or(false));
    let build_args = settings.words("build_args")?.unwrap_or_default();
    let (own_file, folder) = (project.dockerfile(image)?, project.context(image)?);
    project.check_owners(&[
        project.image_dir(image)?,
        own_file.clone(),
        beside(&own_file),
        folder.clone(),
        folder.join(".dockerignore"),
    ])?;
    link_target(&project.at(&own_file), project.root())?;
    let text = read_dockerfile(&project.at(&own_file))?;
    let parsed_args = parse_options(project, &settings, &build_args, env)?;
    if let Some(named) = &parsed_args.file {
        project.check_owners(&[named.clone(), beside(named)])?;
        link_target(named, project.root())?;
    }
    let dockerfile = Dockerfile::parse(&text, &parsed_args);

    let mut steps = Vec::new();
    steps.extend(script(project, &settings, "pre_build_script", "pre-build-script")?);
    let build = |designation: &Designation, target: Option<&str>| -> Result<PlanStep> {
        let mut words: Vec<String> = Vec::new();
        if pull {
            words.push("--pull".to_owned());
        }
        words.extend(["--compress", "-t"].map(str::to_owned));
        words.push(designation.to_string());
        words.push("-f".to_owned());
        words.push(own_file.display().to_string());
        if let Some(target) = target {
            words.extend(["--target".to_owned(), target.to_owned()]);
        }
        words.extend(build_args.iter().cloned());
        let mut options = parse_options(project, &settings, &words, env)?;
        // Seen from the root, where the line is run, and not from the context.
        for (_, place) in options.contexts.iter_mut().filter(|(_, place)| is_folder(place)) {
            *place = project.at(Path::new(place)).display().to_string();
        }
        let request = BuildRequest {
            context: project.at(&folder),
            dockerfile: options.file.clone().unwrap_or_else(|| project.at(&own_file)),
            tags: options.tags.clone(),
            options,
        };
        let words = ["docker", "build"]
            .map(str::to_owned)
            .into_iter()
            .chain(words)
            .chain([positional(dotted(&folder))])
            .collect();
        Ok(PlanStep::Build {
            words,
            request: Box::new(request),
        })
    };
    // Tagged, the layers of the builder stage survive a prune, and the next build is quick.
    if dockerfile.has_stage("builder") {
        steps.push(build(&designation.builder(), Some("builder"))?);
    }
    steps.push(build(&designation, None)?);
    steps.extend(script(project, &settings, "post_build_script", "post-build-script")?);
    let plan = ImagePlan {
        image: image.to_owned(),
        designation,
        needs: Vec::new(),
        steps,
        others: Vec::new(),
    };
    Ok((plan, dockerfile, named.notes))
}

/// The context as docker's argument: what looks like an option or an address there is none.
fn positional(context: &Path) -> String {
    let text = context.display().to_string();
    let is_address = text.contains("://") || ["git@", "github.com/"].iter().any(|start| text.starts_with(start));
    if is_address || text.starts_with('-') {
        format!("./{text}")
    } else {
        text
    }
}

/// The rules that count for this Dockerfile before `.dockerignore`.
pub(super) fn beside(dockerfile: &Path) -> PathBuf {
    let mut path = dockerfile.as_os_str().to_owned();
    path.push(".dockerignore");
    path.into()
}

pub(super) fn read_dockerfile(path: &Path) -> Result<String> {
    project_file::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|cause| Error::usage(format!("{} can't be read", path.display())).because(cause))
}

fn parse_options(project: &Project, settings: &Settings<'_>, words: &[String], env: &Env) -> Result<BuildOptions> {
    BuildOptions::parse(words, project.root(), env)
        .map_err(|cause: BuildOptionError| settings.error("build_args", &cause.to_string()))
}

fn script(project: &Project, settings: &Settings<'_>, key: &str, kind: &'static str) -> Result<Option<PlanStep>> {
    let Some(words) = settings.words(key)? else {
        return Ok(None);
    };
    if let Some(word) = words.iter().find(|word| SHELL_WORDS.contains(&word.as_str())) {
        return Err(settings
            .error(
                key,
                &format!("{word} only works in a shell, but scripts run without one"),
            )
            .hint(hint!("put it into a file, and {} = ./that-file.sh", key)));
    }
    // `sh make-version.sh` runs what its second word names.
    let words_of_paths: Vec<PathBuf> = words.iter().map(PathBuf::from).collect();
    project.check_owners(&words_of_paths)?;
    Ok((!words.is_empty()).then_some(PlanStep::Script { kind, words }))
}

/// Builds what `args` ask for, with the printed lines before it and the table after it.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached. Failed builds are reported, and in the status.
pub fn build(context: &Context, args: &BuildArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let image = &args.image;
    let project = Project::find(&context.working_dir, &context.env);
    let project = project.map_err(|error| of_stack(context, image, error))?;
    warn_of_unknown_keys(&project, printer);
    let mut plan = BuildPlan::new(&project, args, &context.env).map_err(|error| match project.buildable(image) {
        Ok(()) => error,
        Err(_) => of_stack(context, image, error),
    })?;
    plan.docker_prefix = context.docker_prefix()?;
    for note in &plan.notes {
        printer.warning(note);
    }
    if context.global.dry_run {
        let first = genversion::planned(&project)?;
        printer.plan(&first.into_iter().chain(plan.lines()).collect::<Vec<_>>())?;
        return Ok(ExitStatus::SUCCESS);
    }
    // Not on the runtime: Ctrl-C then ends us together with git.
    genversion::before_build(&project, printer)?;
    check::say_serious(context, &project, plan.images.iter().map(|image| image.image.as_str()));
    let reports = context.block_on(run_plan(context, &project, &plan))?;
    print_reports(printer, &reports.images)?;
    Ok(reports.status)
}

/// The error of an image that can't be built here; where it is one of a stack, with the command that builds it.
fn of_stack(context: &Context, image: &str, error: Error) -> Error {
    let names = stack::image_names(&context.working_dir, &context.env);
    match names.iter().any(|name| name == image) {
        true => error.hint(hint!(
            "{} is an image of the stack in {file}: build-stack {} --no-push",
            image,
            image;
            file = stack::FILE
        )),
        false => error,
    }
}

/// What came out of a plan.
pub struct Reports {
    /// One for each image of the plan.
    pub images: Vec<ImageReport>,
    /// The worst code.
    pub status: ExitStatus,
}

/// Which of the images that a Dockerfile names are made by image types of the project, and by which. `made` are these, each
/// with what it is built as.
fn types_of(made: &[(String, String)], dockerfile: &Dockerfile) -> Vec<(String, String)> {
    let named = dockerfile.images().map(|name| (name, canonical(name)));
    let found = named.flat_map(|(name, wanted)| {
        let makers = made.iter().filter(move |(_, built)| *built == wanted);
        makers.map(move |(image, _)| (image.clone(), name.to_owned()))
    });
    found.collect()
}

/// An image of the project that a Dockerfile names by another tag than it is built with: what an older build, or nobody, has left
/// there is used then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtherTag {
    /// The line of its FROM; `None` for an image that is copied or mounted from.
    pub(super) line: Option<usize>,
    /// The image as it is named.
    pub(super) name: String,
    /// The image type.
    pub(super) image: String,
    /// The tag that it is built with.
    pub(super) tag: String,
}

impl OtherTag {
    fn sentence(&self, file: &Path) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!(
            "{}{line} names {}, but image type {} is built with the tag {}",
            file.display(),
            visible(&self.name),
            self.image,
            self.tag
        )
    }
}

/// Images of the project that a Dockerfile names by another tag. `made` are the image types, each with what it is built as;
/// `tag` is the one that this call chooses.
pub(super) fn other_tags(made: &[(String, String)], dockerfile: &Dockerfile, tag: Option<&str>) -> Vec<OtherTag> {
    let mut found = Vec::new();
    for name in dockerfile.images() {
        let wanted = canonical(name);
        // A digest is what it is, whoever built it.
        let Some((repository, named)) = wanted.rsplit_once(':').filter(|_| !wanted.contains('@')) else {
            continue;
        };
        let is_built = made.iter().any(|(_, built)| *built == wanted);
        let other = made.iter().find(|(_, built)| {
            let (of_type, _) = built.rsplit_once(':').unwrap_or_default();
            of_type == repository
        });
        if let (false, false, Some((image, built))) = (is_built, tag == Some(named), other) {
            let other = OtherTag {
                line: dockerfile.line_from(name),
                name: name.to_owned(),
                image: image.clone(),
                tag: built
                    .rsplit_once(':')
                    .map(|(_, tag)| tag)
                    .unwrap_or_default()
                    .to_owned(),
            };
            if !found.contains(&other) {
                found.push(other);
            }
        }
    }
    found
}

/// The image types of a project, each with what it is built as, in its canonical form.
pub(super) fn made_images(project: &Project) -> Result<Vec<(String, String)>> {
    let types = project.image_types().iter();
    types
        .map(|image| {
            let designation = project.designation(image)?.designation;
            Ok((image.clone(), canonical(&designation.to_string())))
        })
        .collect()
}

/// Carries a plan out.
///
/// # Errors
/// An engine that can't be reached. Failed images are in the reports; their errors are printed.
pub async fn run_plan(context: &Context, project: &Project, plan: &BuildPlan) -> Result<Reports> {
    let engine = connect_and_remind(context).await?;
    let locality = where_is(&engine, &context.env, &context.printer).await;
    run_plan_on(context, &engine, locality, project, plan).await
}

/// Where the engine is; said where its address looks local and it counts as far.
pub async fn where_is(engine: &Engine, env: &Env, printer: &Printer) -> Locality {
    said(locality::of(engine, env).await, engine.choice(), printer)
}

/// The same for a dry run, which asks no engine.
pub(super) async fn where_it_would_be(choice: &Choice, env: &Env, printer: &Printer) -> Locality {
    said(locality::foreseen(choice, env).await, choice, printer)
}

fn said(standing: LocalityVerdict, choice: &Choice, printer: &Printer) -> Locality {
    if let Some(doubt) = standing.doubt {
        let address = choice.endpoint.to_string();
        printer.note(&format!(
            "the engine at {address} counts as one on another machine: {doubt}. If it is on this one: export {LOCAL_ENGINE}={}",
            shell::quote(&address)
        ));
    }
    standing.locality
}

/// Carries out a plan on an engine that is connected.
///
/// # Errors
/// As [`run_plan`].
pub async fn run_plan_on(
    context: &Context,
    engine: &Engine,
    locality: Locality,
    project: &Project,
    plan: &BuildPlan,
) -> Result<Reports> {
    let config = Arc::new(ClientConfig::of(&context.env)?);
    let builder = builder_of(engine, context.env.get("DOCKER_BUILDKIT"));
    context.printer.detail(&format!(
        "{} builds, on the engine at {} (API {})",
        match builder {
            Builder::BuildKit => "BuildKit",
            Builder::Classic => "the classic builder",
        },
        engine.choice().endpoint,
        engine.api()
    ));
    if config.has_logins()
        && let Some(warning) = engine.choice().endpoint.login_warning()
    {
        context.printer.warning(&warning);
    }
    let _linked = linked(project, plan, &context.printer);
    let (before, after) = plan.lines_around();
    before.iter().for_each(|line| context.printer.note(line));
    let site = environment::BuildEnvironment {
        engine: engine.clone(),
        locality,
        builder,
        config,
        root: project.root().to_owned(),
        env: context.env.clone(),
        printer: context.printer.clone(),
        progress: context.env.non_empty("BUILDKIT_PROGRESS").map(str::to_owned),
        docker_variables: context.docker_variables()?,
    };
    let reports = schedule::run(&site, plan).await;
    after.iter().for_each(|line| context.printer.note(line));
    reports
}

/// `pip.conf` for the scripts of a plan, which the original let see its copy.
fn linked(project: &Project, plan: &BuildPlan, printer: &Printer) -> Option<Linked> {
    let root = project.root();
    let mut steps = plan.images.iter().flat_map(|image| &image.steps);
    let has_scripts = steps.any(|step| matches!(step, PlanStep::Script { .. }));
    if !has_scripts || !pip_conf::is_made(root).unwrap_or(false) {
        Linked::sweep(root);
        return None;
    }
    Linked::place(root).unwrap_or_else(|cause| {
        printer.warning(&format!(
            "{} can't be linked to its template, so the scripts run without it: {cause}",
            root.join(pip_conf::NAME).display()
        ));
        None
    })
}

/// Prints unknown keys of the configuration, each with the nearest known one, and sections that should be written in another way.
///
/// Sections of variables that no image names yet are reported with `-v` only: they do no harm, and this way nothing
/// has to remember what was reported when.
pub fn warn_of_unknown_keys(project: &Project, printer: &Printer) {
    project
        .misspelled_sections()
        .iter()
        .for_each(|text| printer.warning(text));
    for section in project.unnamed_environments() {
        printer.detail(&format!(
            "no key env names [{section}] of the configuration: it has no effect"
        ));
    }
    for unknown in project.unknown_keys() {
        printer.warning(&match unknown.nearest {
            Some(near) => format!("{} is not known (did you mean {near}?)", unknown.place),
            None => format!("{} is not known", unknown.place),
        });
    }
}

fn print_reports(printer: &Printer, reports: &[ImageReport]) -> Result<()> {
    if printer.json() {
        return printer.result_json(&serde_json::json!({ "images": reports }));
    }
    if !printer.shows_progress() {
        // As `docker build -q`: what was made, for other programs.
        reports
            .iter()
            .filter_map(|report| report.numbers.id.as_deref())
            .for_each(|id| printer.result(id));
        return Ok(());
    }
    let mut table = Table::new([
        ("IMAGE", Align::Left),
        ("STATUS", Align::Left),
        ("SECONDS", Align::Right),
        ("SIZE", Align::Right),
    ]);
    for report in reports {
        table.row([
            report.image.clone(),
            report.status.word().to_owned(),
            format!("{:.1}", report.numbers.seconds),
            report.numbers.size.map(size).unwrap_or_default(),
        ]);
    }
    for line in table.lines() {
        printer.result(&line);
    }
    Ok(())
}

/// Removes the images of all types; one that isn't there is no failure.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached. A refusal is reported, and in the status.
pub fn clean(context: &Context, args: &BuildArgs) -> Result<ExitStatus> {
    if args.image_name.is_some() || args.image_tag.is_some() {
        return Err(
            Error::usage("-i and -t name one image, but clean removes all").hint("docker rmi NAME:TAG removes one")
        );
    }
    if args.with_bases {
        return Err(Error::usage("--with-bases builds, but clean removes").hint("build-image clean"));
    }
    let printer = &context.printer;
    let project = Project::find(&context.working_dir, &context.env)?;
    warn_of_unknown_keys(&project, printer);
    let mut names = Vec::new();
    for image in project.image_types() {
        let designation = project.designation(image)?.designation;
        let text = read_dockerfile(&project.at(&project.dockerfile(image)?))?;
        let builder = Dockerfile::parse(&text, &BuildOptions::default())
            .has_stage("builder")
            .then(|| designation.builder());
        names.extend([designation].into_iter().chain(builder));
    }
    let prefix = context.docker_prefix()?;
    if context.global.dry_run {
        let commands: Vec<String> = names.iter().map(|name| format!("{prefix}docker rmi {name}")).collect();
        printer.plan(&commands)?;
        return Ok(ExitStatus::SUCCESS);
    }
    context.block_on(async {
        let engine = connect_and_remind(context).await?;
        let mut status = ExitStatus::SUCCESS;
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        for name in &names {
            printer.note(&format!("{prefix}docker rmi {name}"));
            let name = name.to_string();
            let answer = engine
                .docker()
                .remove_image(&name, None::<RemoveImageOptions>, None)
                .await;
            match found(answer) {
                Ok(Some(_)) => removed.push(name),
                Ok(None) => {}
                Err(cause) => {
                    let error = engine.error(&name, cause);
                    status = status.max(error.class().status());
                    printer.error(&error);
                    failed.push(ErrorOf::image(&name, &error));
                }
            }
        }
        if printer.json() {
            let done = serde_json::json!({ "removed": removed });
            printer.result_json(&WithFailures { done, failed })?;
        } else {
            removed.iter().for_each(|name| printer.result(name));
        }
        Ok(status)
    })
}

/// The error of a script that failed: its own code is passed on.
fn script_failure(kind: &str, words: &[String], status: std::process::ExitStatus) -> Error {
    let line = shell::join(words);
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Error::new(Class::Code(code), format!("{kind} failed with code {code}: {line}")),
        None => Error::failed(format!("{kind} was ended by a signal: {line}")),
    }
}

/// The report and the code of a build that failed of itself.
fn failure_of(error: &Error) -> Option<&BuildFailure> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Seconds since then, rounded to milliseconds.
fn seconds_since(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}
