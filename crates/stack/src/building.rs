//! What build-stack does: makes the plan of a stack, and carries it out.
//!
//! - [`work`] is what is done with each image, as a value;
//! - [`site`] is the engine that does it, and [`run`] does it (`tested` the tests), in dependency order, side by side where images
//!   are independent;
//! - [`outcome`] is what came of it, and [`reports`] are the files that say so;
//! - [`describing`] describes images that are there, in place of that;
//! - [`lock`] keeps two of them from the same images on the same engine, wherever they run.

pub mod describing;
pub mod lock;
pub mod outcome;
pub mod reports;
pub mod run;
pub mod site;
mod tested;
pub mod work;

use std::path::PathBuf;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::ops::build::default_jobs;
use serde_json::json;

use self::lock::StackLock;
use self::run::StackRun;
use self::site::BuildSite;
use self::work::{StackWork, WantedImages, WorkOptions};
use crate::artifacts::Artifacts;
use crate::current::CurrentStack;
use crate::plan::{Retests, StackPlan};
use crate::planning::{PlannedStack, Stack, StackSelection};
use crate::verdicts::VerdictKey;

/// What build-stack is asked for.
#[derive(Clone, Debug, Default)]
pub struct BuildStackArgs {
    /// The stack, and how it is planned.
    pub selection: StackSelection,
    /// Which of its images.
    pub wanted: WantedImages,
    /// Images that are worked on side by side; by default the number of processors, four at most.
    pub jobs: Option<usize>,
    /// Nothing is written to the registry.
    pub no_push: bool,
    /// Where results, logs and pages go; else the repository's root.
    pub artifacts: Option<PathBuf>,
}

impl BuildStackArgs {
    /// Where the results of this stack go.
    fn artifacts(&self, context: &Context, stack: &Stack) -> Artifacts {
        let artifacts = match &self.artifacts {
            Some(folder) => Artifacts::at(context.working_dir.join(folder)),
            None => Artifacts::of_stack(&stack.directory),
        };
        artifacts.of_images(stack.targets.iter().map(|target| target.designation.to_string()))
    }
}

/// Builds, copies, tests and pushes what the plan of the stack says.
///
/// # Errors
/// What the spec, the Dockerfiles, git or a registry have against the plan; an engine that can't be reached. An image that fails is
/// in the status.
pub fn build_stack(context: &Context, args: &BuildStackArgs) -> Result<ExitStatus> {
    let is_dry = context.global.dry_run;
    let (stack, _lock) = match is_dry {
        true => (Stack::read(context, &args.selection)?, None),
        false => {
            let (stack, lock) = held(context, &args.selection)?;
            (stack, Some(lock))
        }
    };
    let message = &stack.history.message;
    if let Some(ci) = stack.ci.as_ref().filter(|ci| ci.is_skipped(message)) {
        return skipped(
            context,
            &stack,
            &format!("{} is asked to skip this: \"skip ci\"", ci.system.name()),
        );
    }
    let logins = ClientConfig::of(&context.env)?;
    context.block_on(async {
        let planned = stack.planned(context, &logins).await?;
        let part = args.wanted.part(&planned.plan, &planned.stack.targets)?;
        if is_dry {
            return show_plan(context, &planned, &part);
        }
        part.notes.iter().for_each(|note| context.printer.warning(note));
        part.tree().iter().for_each(|line| context.printer.note(line));
        carry_out(context, args, &planned, &part, &logins).await
    })
}

/// Reads the stack once no other run works on its images.
fn held(context: &Context, selection: &StackSelection) -> Result<(Stack, StackLock)> {
    let directory = selection.directory.as_deref();
    let images = lock::names(&CurrentStack::read(context, directory, selection.plan.as_deref(), false)?.targets);
    let held = context.block_on(StackLock::take(context, &images))?;
    let stack = Stack::read(context, selection)?;
    match lock::names(&stack.targets) == images {
        true => Ok((stack, held)),
        false => Err(
            Error::failed("the names of the images have changed while this waited for another build-stack")
                .hint("another branch was checked out, or spec.yml was changed: call it again"),
        ),
    }
}

/// Prints the plan in place of carrying it out.
fn show_plan(context: &Context, planned: &PlannedStack, part: &StackPlan) -> Result<ExitStatus> {
    let printer = &context.printer;
    if printer.json() {
        return printer
            .result_json(&planned.document(part))
            .map(|()| ExitStatus::SUCCESS);
    }
    part.notes.iter().for_each(|note| printer.warning(note));
    printer.plan(&part.tree()).map(|()| ExitStatus::SUCCESS)
}

/// Nothing is built, because somebody asked for that.
fn skipped(context: &Context, stack: &Stack, why: &str) -> Result<ExitStatus> {
    let printer = &context.printer;
    printer.note(&format!("nothing is built: {why}"));
    if printer.json() {
        printer.result_json(&json!({
            "branch": stack.source.branch,
            "images": [],
            "skipped": why,
        }))?;
    }
    Ok(ExitStatus::SUCCESS)
}

async fn carry_out(
    context: &Context,
    args: &BuildStackArgs,
    planned: &PlannedStack,
    part: &StackPlan,
    logins: &ClientConfig,
) -> Result<ExitStatus> {
    let printer = &context.printer;
    let artifacts = args.artifacts(context, &planned.stack);
    // Who can't sign is told before anything is built.
    let key = match args.no_push || args.selection.retests == Retests::None {
        true => None,
        false => VerdictKey::of(&context.env, None, &context.working_dir)?,
    };
    let mut options = WorkOptions {
        pushes: !args.no_push,
        annotates: false,
        caches: false,
    };
    let work = |options| StackWork::of(planned, &args.wanted, options, &context.env, &context.working_dir);
    let mut all = work(options)?;
    let site = match all.images.iter().any(|image| image.kind.needs_engine()) {
        true => {
            let site = BuildSite::reach(context).await?;
            (options.annotates, options.caches) = (site.annotates, site.caches);
            all = work(options)?;
            Some(site.with_builds(context, planned, &all, logins).await?)
        }
        false => None,
    };
    let run = StackRun {
        context,
        planned,
        work: &all,
        logins,
        site: site.as_ref(),
        artifacts: &artifacts,
        key: key.as_ref(),
    };
    let results = run.all(args.jobs.unwrap_or_else(default_jobs).max(1)).await;
    if let Some(site) = &site {
        site.finish();
    }
    let mut status = outcome::status(&results);
    if let Err(error) = reports::write(context, &artifacts, part, &results) {
        printer.error(&error);
        status = status.max(error.class().status());
    }
    let failure = outcome::failure(&results);
    if printer.json() {
        let mut document = planned.document(part);
        if let Some(document) = document.as_object_mut() {
            document.insert("images".to_owned(), json!(results));
            let failed = failure.as_ref().map(|error| json!(error.to_string()));
            document.extend(failed.map(|error| ("error".to_owned(), error)));
        }
        printer.result_json(&document)?;
    } else {
        printer.table(&outcome::table(&results));
    }
    if let Some(failure) = failure {
        printer.error(&failure);
    }
    Ok(status)
}
