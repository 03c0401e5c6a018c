//! What tag-stack does: plans, shows the plan, and moves the tags.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::error::{Error, ErrorDocument, ExitStatus, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::is_tag;
use dockerutils_core::output::counted;
use dockerutils_core::output::progress::waiting::WaitingRow;
use serde::Serialize;

use super::facts::{self, PromotedImage, PromotedManifests};
use super::interruption::Interruption;
use super::moves::{MoveResult, PromotionOutcome, TagMove, carry_out};
use super::{MoveAction, PlannedMove, PromotionPlan, plan};
use crate::ownership;
use crate::planning;
use crate::registry_state::Registries;
use crate::spec::Spec;
use crate::suites::{TestKind, has_tests};
use crate::tags::is_list_of_referrers;
use crate::verdicts::VerdictPublicKey;

/// What is said when the user interrupts.
const PUTTING_BACK: &str =
    "interrupted: the tags that were moved are put back; interrupt it again to leave them as they are";

/// What tag-stack is asked for.
#[derive(Clone, Debug, Default)]
pub struct PromotionArgs {
    /// The tag that the images have.
    pub from: String,
    /// The tag that they get.
    pub to: String,
    /// Whatever their tests said.
    pub force: bool,
    /// The only plan.
    pub plan: Option<String>,
    /// The directory of the images.
    pub directory: Option<PathBuf>,
    /// The file with the key whose verdicts count.
    pub verdict_key: Option<PathBuf>,
}

/// The result as a document.
#[derive(Serialize)]
struct PromotionDocument<'d> {
    from: &'d str,
    to: &'d str,
    /// Whether all images have the tag now.
    promoted: bool,
    images: Vec<PromotedDocument<'d>>,
    #[serde(flatten)]
    why: Option<ErrorDocument>,
}

#[derive(Serialize)]
struct PromotedDocument<'d> {
    #[serde(flatten)]
    planned: &'d PlannedMove,
    /// What became of its tag; left out if nothing was to be done, or nothing was done.
    #[serde(flatten)]
    result: Option<MoveResult>,
}

/// Promotes the images of a stack.
///
/// # Errors
/// What the spec or a registry has against it; tests that failed, or that nothing is known of; tags that somebody else moves.
pub fn tag_stack(context: &Context, args: &PromotionArgs) -> Result<ExitStatus> {
    check_tags(args)?;
    let directory = planning::directory(&context.working_dir, args.directory.as_deref())?;
    ownership::check_spec(&context.env, &directory)?;
    let spec = Spec::read(&directory)?;
    let images = promoted(&spec, &directory, args)?;
    let key = VerdictPublicKey::of(&context.env, args.verdict_key.as_deref(), &context.working_dir)?;
    let logins = ClientConfig::of(&context.env)?;
    let printer = &context.printer;
    // In one runtime: connections that stand are used again.
    context.block_on_uninterrupted(async {
        let interruption = Interruption::by_signals()?;
        let asked = async {
            let row = format!("asking registries about {}", counted(images.len(), "image"));
            let _row = WaitingRow::new(printer, &row, Instant::now());
            let repositories = images.iter().map(|image| image.repository.as_str());
            let registries = Registries::reach(repositories, &logins, &context.env).await?;
            registries.warnings.iter().for_each(|warning| printer.warning(warning));
            let asked = facts::ask(&registries, &images, (&args.from, &args.to), key.as_ref()).await?;
            Ok::<_, Error>((registries, asked))
        };
        let (registries, (mut facts, manifests)) = tokio::select! {
            asked = asked => asked?,
            () = interruption.made() => return Err(Error::interrupted()),
        };
        tokio::task::block_in_place(|| facts::add_commits(&mut facts, &directory))?;
        let plan = plan(&facts);
        let refused = plan.check(args.force).err();
        let is_over = refused.is_some() || context.global.dry_run;
        if !printer.json() {
            plan.lines().iter().for_each(|line| printer.result(line));
        }
        if is_over {
            let outcome = PromotionOutcome {
                results: Vec::new(),
                notes: Vec::new(),
                error: refused,
            };
            return finish(context, &plan, outcome);
        }
        warn(context, &plan, key.is_some());
        let moves = moves(&plan, &registries, manifests)?;
        let moved = plan.images.iter().filter(|image| image.action == MoveAction::Move);
        let row = format!("moving {}", counted(moved.count(), "tag"));
        let outcome = {
            let _row = WaitingRow::new(printer, &row, Instant::now());
            let said = async {
                interruption.made().await;
                printer.warning(PUTTING_BACK);
                pending().await
            };
            tokio::select! {
                // It is said before it is done.
                biased;
                outcome = said => outcome,
                outcome = carry_out(&moves, &interruption) => outcome,
            }
        };
        finish(context, &plan, outcome)
    })
}

fn check_tags(args: &PromotionArgs) -> Result<()> {
    for tag in [&args.from, &args.to] {
        if !is_tag(tag) {
            return Err(Error::usage(format!("{tag:?} can't be a tag"))
                .hint("a tag has letters, digits, _, . and -: tag-stack 2026.3-main 2026.3-stable"));
        }
    }
    if args.from == args.to {
        return Err(Error::usage(format!("{:?} is to get the tag that it has", args.from)));
    }
    // The tag of the list of what is attached to an image.
    if is_list_of_referrers(&args.to) {
        return Err(Error::usage(format!(
            "{} is the tag of what is attached to an image",
            args.to
        )));
    }
    Ok(())
}

/// The images of the plan that is meant, a parent before its children.
fn promoted(spec: &Spec, directory: &Path, args: &PromotionArgs) -> Result<Vec<PromotedImage>> {
    let mut spec = spec.clone();
    match &args.plan {
        Some(name) => spec.keep_plan(name)?,
        None if spec.plans.len() > 1 => {
            let Some(name) = plan_of(&spec, &args.from) else {
                let names: Vec<&str> = spec.plans.iter().map(|plan| plan.name.as_str()).collect();
                return Err(
                    Error::usage(format!("{} is of none of the plans of spec.yml", args.from))
                        .hint(hint!("name the plan: --plan, one of {names}"; names = names.join(", "))),
                );
            };
            spec.keep_plan(&name)?;
        }
        None => {}
    }
    let plan = spec.plans.first().map(|plan| plan.name.clone()).unwrap_or_default();
    if let Some(other) = plan_of(&spec, &args.to).filter(|other| *other != plan) {
        return Err(Error::usage(format!(
            "{} is a tag of plan {other}, and {} is one of plan {plan}",
            args.to, args.from
        ))
        .hint("give them a tag with the prefix of their own plan, or one without a prefix"));
    }
    let mut images = Vec::new();
    for (name, section) in &spec.images {
        if section.skip_plans.contains(&plan) {
            continue;
        }
        images.push(PromotedImage {
            image: name.clone(),
            repository: spec.repository(name)?,
            parent: section.depend_on.clone(),
            tests: demanded(&spec, name, &directory.join(name)),
        });
    }
    Ok(images)
}

/// The plan whose prefix a tag begins with; of several, that with the longest one: 2021.3 and 2021.3-gpu may both be there.
fn plan_of(spec: &Spec, tag: &str) -> Option<String> {
    let fits = spec.all_plans().filter(|plan| {
        let rest = plan.prefix.as_deref().and_then(|prefix| tag.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.starts_with(['-', '.', '_']))
    });
    let longest = fits.max_by_key(|plan| plan.prefix.as_ref().map(String::len));
    longest.map(|plan| plan.name.clone())
}

/// The kinds of tests of which there must be a verdict: those that the image has in its directory, and those that spec.yml speaks of
/// where the directory is not checked out. Where neither says anything, any verdict is enough.
fn demanded(spec: &Spec, name: &str, directory: &Path) -> Vec<TestKind> {
    let is_said = |kind: TestKind| {
        let says = spec.image(name).is_some_and(|section| section.integration_tests);
        kind == TestKind::Integration && says && !directory.is_dir()
    };
    let kinds = TestKind::OF_BUILDS.into_iter();
    kinds
        .filter(|kind| has_tests(spec, name, directory, *kind) || is_said(*kind))
        .collect()
}

/// Says what a person should know before tags are moved.
fn warn(context: &Context, plan: &PromotionPlan, has_key: bool) {
    let printer = &context.printer;
    let objected = plan.images.iter().filter(|image| !image.objections.is_empty()).count();
    if objected > 0 {
        printer.warning(&format!(
            "promoted by --force: {} did not prove good",
            counted(objected, "image")
        ));
    }
    if !has_key && plan.images.iter().any(|image| !image.verdicts.is_empty()) {
        printer.warning("the verdicts are not checked by a key: whoever may push could have written them");
    }
}

/// The moves of the plan, in the order of its images; also of those whose tag names the digest already: another run may
/// have moved it just now, and put it back.
fn moves(plan: &PromotionPlan, registries: &Registries, manifests: Vec<PromotedManifests>) -> Result<Vec<TagMove>> {
    let planned = plan.images.iter().zip(manifests);
    planned
        .map(|(image, manifests)| {
            let place = registries.place(&image.repository)?;
            let absent = || Error::failed(format!("there is no {}:{}", image.repository, plan.from));
            Ok(TagMove {
                image: image.image.clone(),
                registry: place.registry.clone(),
                repository: place.repository,
                name: image.repository.clone(),
                from: plan.from.clone(),
                to: plan.to.clone(),
                new: manifests.from.ok_or_else(absent)?,
                old: manifests.to,
            })
        })
        .collect()
}

/// Shows what became of it.
fn finish(context: &Context, plan: &PromotionPlan, outcome: PromotionOutcome) -> Result<ExitStatus> {
    let printer = &context.printer;
    let is_done = outcome.error.is_none() && !context.global.dry_run;
    outcome.notes.iter().for_each(|note| printer.warning(note));
    if printer.json() {
        let mut results = outcome.results.into_iter();
        let images = plan.images.iter().map(|planned| PromotedDocument {
            result: results.next().filter(|_| planned.action == MoveAction::Move),
            planned,
        });
        printer.result_json(&PromotionDocument {
            from: &plan.from,
            to: &plan.to,
            promoted: is_done,
            images: images.collect(),
            why: outcome.error.as_ref().map(Error::document),
        })?;
    }
    match outcome.error {
        Some(error) => Err(error),
        None => {
            if is_done {
                let moved = plan.images.iter().filter(|image| image.action == MoveAction::Move);
                printer.note(&match moved.count() {
                    0 => format!(
                        "nothing to do: all images of {} have the tag {} already",
                        plan.from, plan.to
                    ),
                    moved => format!("{} promoted to {}", counted(moved, "image"), plan.to),
                });
            }
            Ok(ExitStatus::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests;
