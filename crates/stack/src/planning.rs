//! Reads spec, git and registries, and makes the plan of a stack; and what plan-stack does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dockerutils_core::cli::Context;
use dockerutils_core::config::stack::DIRECTORIES;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::naming::Designation;
use dockerutils_core::output::table::{Align, Table};
use dockerutils_core::output::{counted, visible};
use serde_json::{Value, json};

use crate::artifacts::Artifacts;
use crate::graph::{Graph, StackImage};
use crate::history::{CiVariables, History, RangeStart};
use crate::input_digest::{Inputs, pinned};
use crate::ownership;
use crate::pending_tests;
use crate::plan::{self, Action, PlanFacts, RegistryState, Retests, StackPlan};
use crate::registry_state::Registries;
use crate::spec::{ChangeIgnore, FILE, Spec};
use crate::suites::{TestKind, has_tests};
use crate::summary;
use crate::tag_list::rows;
use crate::tags::{StackTarget, TagSource, targets};

/// Which stack is planned, and how.
#[derive(Clone, Debug, Default)]
pub struct StackSelection {
    /// Where the range begins; else CI says it.
    pub start: Option<RangeStart>,
    /// Everything is to be built.
    pub all: bool,
    /// Which images that are there are tested again.
    pub retests: Retests,
    /// The only plan.
    pub plan: Option<String>,
    /// The directory of the images.
    pub directory: Option<PathBuf>,
}

/// A stack with all that its plan is made from, but for what registries hold.
#[derive(Debug)]
pub struct Stack {
    /// The directory with the spec.
    pub directory: PathBuf,
    pub spec: Spec,
    pub graph: Graph,
    pub change_ignore: ChangeIgnore,
    pub history: History,
    /// The branch, its base, and the commit.
    pub source: TagSource,
    pub targets: Vec<StackTarget>,
    /// What CI says about the build.
    pub ci: Option<CiVariables>,
    /// The images whose tests did not end well here, or did not end, by their keys.
    pub untested: BTreeSet<String>,
    /// Everything is to be built.
    pub all: bool,
    /// Which images that are there are tested again.
    pub retests: Retests,
    /// Remarks about the names.
    notes: Vec<String>,
}

/// A stack with its plan, and what that was made from.
#[derive(Debug)]
pub struct PlannedStack {
    pub stack: Stack,
    /// The registries of its images and bases.
    pub registries: Registries,
    /// What they hold of its tags.
    pub state: RegistryState,
    /// The digests of the images outside of the stack, by their references.
    pub bases: BTreeMap<String, String>,
    /// Of each target.
    pub inputs: Vec<Inputs>,
    pub plan: StackPlan,
}

impl Stack {
    /// Reads spec, Dockerfiles and git; names all images.
    ///
    /// # Errors
    /// What the spec, the Dockerfiles or git have against it.
    pub fn read(context: &Context, selection: &StackSelection) -> Result<Self> {
        let directory = directory(&context.working_dir, selection.directory.as_deref())?;
        ownership::check_spec(&context.env, &directory)?;
        let mut spec = Spec::read(&directory)?;
        if let Some(plan) = &selection.plan {
            spec.keep_plan(plan)?;
        }
        let change_ignore = ChangeIgnore::read(&directory)?;
        let graph = Graph::read(&spec, &directory)?;
        ownership::check_images(&context.env, &directory, &graph)?;
        let ci = CiVariables::read(&context.env);
        let of_ci = ci.as_ref().and_then(CiVariables::start);
        let start = selection.start.as_ref().or(of_ci.as_ref());
        let history = History::read(&directory, start, selection.start.is_some(), FILE)?;
        let base_branch = match &selection.start {
            Some(RangeStart::Base(branch)) => Some(branch.clone()),
            _ => ci
                .as_ref()
                .and_then(|ci| ci.base_branch.clone().or_else(|| ci.main_branch().map(str::to_owned)))
                .or_else(|| history.default_branch.clone()),
        };
        let uncommitted = uncommitted(&history, &graph);
        let source = TagSource {
            branch: history.branch(ci.as_ref())?.to_owned(),
            base_branch,
            commit: history.commit.clone().filter(|_| uncommitted.is_none()),
        };
        let (targets, mut notes) = targets(&spec, &graph, &source)?;
        if let Some(file) = uncommitted.filter(|_| spec.tag_sha && history.commit.is_some()) {
            notes.push(format!(
                "no image gets a tag with the commit, as {file} is not committed"
            ));
        }
        Ok(Self {
            directory,
            spec,
            graph,
            change_ignore,
            history,
            source,
            targets,
            ci,
            untested: pending_tests::read(&context.env),
            all: selection.all,
            retests: selection.retests,
            notes,
        })
    }

    /// Asks the registries about all tags at once, and makes the plan.
    ///
    /// # Errors
    /// A registry that refuses, or can't be reached; a context that can't be read.
    pub async fn planned(self, context: &Context, logins: &ClientConfig) -> Result<PlannedStack> {
        let own = self.targets.iter().map(|target| target.designation.name.as_str());
        let bases = self.targets.iter().flat_map(|target| &target.bases);
        let bases = bases.filter(|base| pinned(base).is_none()).map(String::as_str);
        let registries = Registries::reach(own.chain(bases), logins, &context.env).await?;
        say_warnings(context, &registries);
        let (bases, mut state) = tokio::try_join!(
            registries.bases(&self.targets),
            registries.state(&self.targets, |target| self.asks_of_tests(target))
        )?;
        let inputs = inputs(&self.graph, &self.targets, &bases)?;
        let mut plan = plan::plan(&self.facts(&inputs, &state));
        let unknown = self.copied_unknown(&plan, &state);
        if !unknown.is_empty() {
            registries.add_tests(&mut state, &unknown).await?;
            plan = plan::plan(&self.facts(&inputs, &state));
        }
        plan.notes.extend(self.notes.iter().cloned());
        Ok(PlannedStack {
            stack: self,
            registries,
            state,
            bases,
            inputs,
            plan,
        })
    }

    /// Whether the registry is asked how the tests of an image ended: it has some that a build runs.
    fn asks_of_tests(&self, target: &StackTarget) -> bool {
        let counts = self.retests == Retests::Unfinished;
        let image = self.graph.images.get(target.image).filter(|_| counts);
        let has = |image: &StackImage, kind| has_tests(&self.spec, &image.name, &image.directory, kind);
        image.is_some_and(|image| TestKind::OF_BUILDS.into_iter().any(|kind| has(image, kind)))
    }

    /// What is to be copied, and was not asked about its tests.
    fn copied_unknown(&self, plan: &StackPlan, state: &RegistryState) -> Vec<Designation> {
        let copied = self.targets.iter().zip(&plan.images).filter_map(|(target, image)| {
            let Action::Copy { from, .. } = &image.action else {
                return None;
            };
            let mut places = target.fallbacks.iter().map(|tag| Designation {
                name: target.designation.name.clone(),
                tag: tag.clone(),
            });
            places.find(|place| place.to_string() == *from && self.asks_of_tests(target))
        });
        let is_unknown = |place: &Designation| {
            let there = state.get(place).and_then(Option::as_ref);
            there.is_some_and(|there| there.tests.is_none())
        };
        copied.filter(is_unknown).collect()
    }

    const fn facts<'f>(&'f self, inputs: &'f [Inputs], registry: &'f RegistryState) -> PlanFacts<'f> {
        PlanFacts {
            spec: &self.spec,
            graph: &self.graph,
            targets: self.targets.as_slice(),
            inputs,
            history: &self.history,
            change_ignore: &self.change_ignore,
            registry,
            untested: &self.untested,
            all: self.all,
            retests: self.retests,
        }
    }
}

impl PlannedStack {
    /// What the plan was made from.
    pub fn facts(&self) -> PlanFacts<'_> {
        self.stack.facts(&self.inputs, &self.state)
    }

    /// The plan, or a part of it, as a document.
    pub fn document(&self, plan: &StackPlan) -> Value {
        json!({
            "branch": self.stack.source.branch,
            "base_branch": self.stack.source.base_branch,
            "since": self.stack.history.since,
            "images": plan.images,
            "notes": plan.notes,
        })
    }

    /// How much there is to do, in a line.
    pub fn sum(&self) -> String {
        let images = &self.plan.images;
        let number = |counts: fn(&Action) -> bool| images.iter().filter(|image| counts(&image.action)).count();
        format!(
            "{}: {} to build, {} to copy, {} to test again",
            counted(images.len(), "image"),
            number(|action| matches!(action, Action::Build)),
            number(|action| matches!(action, Action::Copy { .. })),
            number(|action| matches!(action, Action::Test { .. })),
        )
    }
}

fn say_warnings(context: &Context, registries: &Registries) {
    let warnings = registries.warnings.iter();
    warnings.for_each(|warning| context.printer.warning(warning));
}

/// How the plan is shown; `--json` is a global option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanView {
    /// A tree, for a terminal; with `--json`, a document.
    #[default]
    Tree,
    /// A flowchart of Mermaid.
    Mermaid,
    /// A file for docker buildx bake.
    Bake,
    /// The tags in the registry, in place of a plan.
    Tags,
}

/// Makes the plan of the stack, and prints it.
///
/// # Errors
/// What the spec, the Dockerfiles, git or a registry have against it.
pub fn plan_stack(context: &Context, selection: &StackSelection, view: PlanView) -> Result<ExitStatus> {
    let printer = &context.printer;
    let stack = Stack::read(context, selection)?;
    let logins = ClientConfig::of(&context.env)?;
    if view == PlanView::Tags {
        return show_tags(context, &stack, &logins);
    }
    let planned = context.block_on(stack.planned(context, &logins))?;
    let plan = &planned.plan;
    // What CI does not take need not stop anybody.
    if !context.global.dry_run
        && let Err(error) = summary::write(
            &context.env,
            &Artifacts::of_stack(&planned.stack.directory),
            &summary::of_plan(plan),
        )
    {
        printer.warning(&error.with_causes());
    }
    if view == PlanView::Bake {
        return printer
            .result_json(&plan.bake(&planned.facts()))
            .map(|()| ExitStatus::SUCCESS);
    }
    if printer.json() {
        return printer
            .result_json(&planned.document(plan))
            .map(|()| ExitStatus::SUCCESS);
    }
    plan.notes.iter().for_each(|note| printer.warning(note));
    if view == PlanView::Mermaid {
        printer.result(plan.mermaid().trim_end());
        return Ok(ExitStatus::SUCCESS);
    }
    plan.tree().iter().for_each(|line| printer.result(line));
    printer.note(&planned.sum());
    Ok(ExitStatus::SUCCESS)
}

/// A file of the spec or of an image's directory that differs from HEAD, if there is one.
fn uncommitted(history: &History, graph: &Graph) -> Option<String> {
    let is_of_stack = |path: &str| match path.split_once('/') {
        Some((directory, _)) => graph.images.iter().any(|image| image.name == directory),
        None => path == FILE,
    };
    let mut files = history.changed.iter();
    let found = files.find(|(path, changes)| changes.is_uncommitted && is_of_stack(path));
    found.map(|(path, _)| path.clone())
}

/// The inputs of each target, a parent's before its children's.
fn inputs(graph: &Graph, targets: &[StackTarget], bases: &BTreeMap<String, String>) -> Result<Vec<Inputs>> {
    let mut all: Vec<Inputs> = Vec::new();
    for target in targets {
        let parent = target.parent.and_then(|parent| all.get(parent)).map(Inputs::digest);
        all.push(Inputs::of(graph, target, parent.as_deref(), bases)?);
    }
    Ok(all)
}

/// The directory with the spec, as it is named, or where it usually is.
///
/// # Errors
/// There is none.
pub(crate) fn directory(working: &Path, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(working.join(named));
    }
    let mut usual = DIRECTORIES.iter().map(|name| working.join(name));
    usual.find(|directory| directory.join(FILE).is_file()).ok_or_else(|| {
        Error::usage(format!(
            "{} has no stack: there is no {FILE} in images/ or docker/",
            working.display()
        ))
        .hint("name the directory that has it: --dir DIR")
    })
}

fn show_tags(context: &Context, stack: &Stack, logins: &ClientConfig) -> Result<ExitStatus> {
    let names = || stack.targets.iter().map(|target| target.designation.name.as_str());
    let found = context.block_on(async {
        let registries = Registries::reach(names(), logins, &context.env).await?;
        say_warnings(context, &registries);
        registries.tags(names().map(str::to_owned).collect()).await
    })?;
    let rows = rows(&stack.spec, &stack.targets, &found, &stack.history.branches);
    if context.printer.json() {
        return context.printer.result_json(&rows).map(|()| ExitStatus::SUCCESS);
    }
    let columns = ["IMAGE", "REFERENCE", "TAG OF"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns);
    for row in &rows {
        table.row([visible(&row.image), visible(&row.reference), visible(&row.says())]);
    }
    context.printer.table(&table);
    Ok(ExitStatus::SUCCESS)
}
