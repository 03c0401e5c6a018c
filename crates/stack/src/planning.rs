//! What plan-stack does: reads spec, git and registries, and shows the plan.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::output::table::{Align, Table};
use dockerutils_core::output::{counted, visible};
use serde_json::json;

use crate::artifacts::Artifacts;
use crate::graph::Graph;
use crate::history::{CiVariables, History, RangeStart};
use crate::input_digest::Inputs;
use crate::plan::{Action, PlanFacts, plan};
use crate::registry_state::Registries;
use crate::spec::{ChangeIgnore, FILE, Spec};
use crate::summary;
use crate::tag_list::{TagRow, rows};
use crate::tags::{StackTarget, TagSource, targets};

/// Where the images are looked for, seen from the working directory.
const DIRECTORIES: [&str; 3] = ["images", "docker", "."];

/// What plan-stack is asked for.
#[derive(Clone, Debug, Default)]
pub struct PlanArgs {
    /// Where the range begins; else CI says it.
    pub start: Option<RangeStart>,
    /// Everything is to be built.
    pub all: bool,
    /// The only plan.
    pub plan: Option<String>,
    /// The directory of the images.
    pub directory: Option<PathBuf>,
    pub view: PlanView,
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
pub fn plan_stack(context: &Context, args: &PlanArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let directory = directory(&context.working_dir, args.directory.as_deref())?;
    let mut spec = Spec::read(&directory)?;
    if let Some(plan) = &args.plan {
        spec.keep_plan(plan)?;
    }
    let change_ignore = ChangeIgnore::read(&directory)?;
    let graph = Graph::read(&spec, &directory)?;
    let ci = CiVariables::read(&context.env);
    let of_ci = ci.as_ref().and_then(CiVariables::start);
    let start = args.start.as_ref().or(of_ci.as_ref());
    let history = History::read(&directory, start, args.start.is_some(), FILE)?;
    let base_branch = match &args.start {
        Some(RangeStart::Base(branch)) => Some(branch.clone()),
        _ => ci
            .as_ref()
            .and_then(|ci| ci.base_branch.clone())
            .or_else(|| history.default_branch.clone()),
    };
    let source = TagSource {
        branch: history
            .branch(ci.as_ref().and_then(|ci| ci.branch.as_deref()))?
            .to_owned(),
        base_branch,
        commit: history.commit.clone(),
    };
    let (targets, notes) = targets(&spec, &graph, &source)?;
    let logins = ClientConfig::of(&context.env)?;
    if args.view == PlanView::Tags {
        let repositories = targets.iter().map(|target| target.designation.name.clone()).collect();
        let found = context.block_on(async {
            let registries =
                Registries::reach(targets.iter().map(|target| target.designation.name.as_str()), &logins).await?;
            registries.warnings.iter().for_each(|warning| printer.warning(warning));
            registries.tags(repositories).await
        })?;
        return show_tags(context, &rows(&spec, &targets, &found, &history.branches));
    }
    let (bases, registry) = context.block_on(ask(context, &targets, &logins))?;
    let inputs = inputs(&graph, &targets, &bases)?;
    let facts = PlanFacts {
        spec: &spec,
        graph: &graph,
        targets: &targets,
        inputs: &inputs,
        history: &history,
        change_ignore: &change_ignore,
        registry: &registry,
        all: args.all,
    };
    let mut plan = plan(&facts);
    plan.notes.extend(notes);
    // What CI does not take need not stop anybody.
    if !context.global.dry_run
        && let Err(error) = summary::write(&context.env, &Artifacts::of_stack(&directory), &summary::of_plan(&plan))
    {
        printer.warning(&error.with_causes());
    }
    if args.view == PlanView::Bake {
        return printer.result_json(&plan.bake(&facts)).map(|()| ExitStatus::SUCCESS);
    }
    if printer.json() {
        printer.result_json(&json!({
            "branch": source.branch,
            "base_branch": source.base_branch,
            "since": history.since,
            "images": plan.images,
            "notes": plan.notes,
        }))?;
        return Ok(ExitStatus::SUCCESS);
    }
    plan.notes.iter().for_each(|note| printer.warning(note));
    if args.view == PlanView::Mermaid {
        printer.result(plan.mermaid().trim_end());
        return Ok(ExitStatus::SUCCESS);
    }
    plan.tree().iter().for_each(|line| printer.result(line));
    let number = |counts: fn(&Action) -> bool| plan.images.iter().filter(|image| counts(&image.action)).count();
    printer.note(&format!(
        "{}: {} to build, {} to copy, {} to test again",
        counted(plan.images.len(), "image"),
        number(|action| matches!(action, Action::Build)),
        number(|action| matches!(action, Action::Copy { .. })),
        number(|action| matches!(action, Action::Test { .. })),
    ));
    Ok(ExitStatus::SUCCESS)
}

/// The digests of the bases, and what there is of the targets: asked side by side.
async fn ask(
    context: &Context,
    targets: &[StackTarget],
    logins: &ClientConfig,
) -> Result<(BTreeMap<String, String>, crate::plan::RegistryState)> {
    let own = targets.iter().map(|target| target.designation.name.as_str());
    let bases = targets.iter().flat_map(|target| &target.bases);
    let bases = bases
        .filter(|base| crate::input_digest::pinned(base).is_none())
        .map(String::as_str);
    let registries = Registries::reach(own.chain(bases), logins).await?;
    registries
        .warnings
        .iter()
        .for_each(|warning| context.printer.warning(warning));
    tokio::try_join!(registries.bases(targets), registries.state(targets))
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

/// The directory with the spec.
fn directory(working: &Path, named: Option<&Path>) -> Result<PathBuf> {
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

fn show_tags(context: &Context, rows: &[TagRow]) -> Result<ExitStatus> {
    if context.printer.json() {
        return context.printer.result_json(&rows).map(|()| ExitStatus::SUCCESS);
    }
    let columns = ["IMAGE", "REFERENCE", "TAG OF"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns);
    for row in rows {
        table.row([visible(&row.image), visible(&row.reference), visible(&row.says())]);
    }
    context.printer.table(&table);
    Ok(ExitStatus::SUCCESS)
}
