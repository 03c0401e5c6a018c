//! What `build-stack --describe` does: writes the pages of images that are in the registry, and builds nothing.

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::images::image;
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::hint;
use dockerutils_core::output::{counted, visible};
use serde_json::{Value, json};

use super::BuildStackArgs;
use crate::artifacts::Artifacts;
use crate::manifests::{self, Description, KeptImage};
use crate::planning::{PlannedStack, Stack};
use crate::tags::StackTarget;

/// Describes the images that are asked for as they are in the registry under the branch's tag; those that the engine lacks are pulled.
/// One that can't be described stops no other.
///
/// # Errors
/// What the spec, git or a registry have against it; an engine that can't be reached. An image that fails is in the status.
pub fn describe_stack(context: &Context, args: &BuildStackArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let stack = Stack::read(context, &args.selection)?;
    let artifacts = args.artifacts(context, &stack);
    let logins = ClientConfig::of(&context.env)?;
    context.block_on(async {
        let planned = stack.planned(context, &logins).await?;
        let wanted = args.wanted.positions(&planned.stack.targets)?;
        let targets = planned.stack.targets.iter().enumerate();
        let targets: Vec<&StackTarget> = targets
            .filter(|(position, _)| wanted.contains(position))
            .map(|(_, target)| target)
            .collect();
        if context.global.dry_run {
            let lines = targets.iter().map(|target| format!("describe {}", target.designation));
            return printer.plan(&lines.collect::<Vec<_>>()).map(|()| ExitStatus::SUCCESS);
        }
        let engine = context.connect().await?;
        let mut status = ExitStatus::SUCCESS;
        let mut documents: Vec<Value> = Vec::new();
        let mut described_count = 0;
        for target in &targets {
            match described(context, &engine, &planned, target, &logins, &artifacts).await {
                Ok(description) => {
                    if !printer.json() {
                        let page = artifacts.page(&description.reference);
                        printer.result(&visible(&page.display().to_string()));
                    }
                    described_count += 1;
                    documents.push(json!(description));
                }
                Err(error) => {
                    status = status.max(error.class().status());
                    printer.error(&error);
                    let mut document = json!(error.document());
                    if let Some(fields) = document.as_object_mut() {
                        fields.insert("reference".to_owned(), json!(target.designation.to_string()));
                    }
                    documents.push(document);
                }
            }
        }
        manifests::write_index(&artifacts)?;
        if printer.json() {
            printer.result_json(&json!({ "images": documents }))?;
        }
        printer.note(&format!(
            "{} of {} described",
            described_count,
            counted(targets.len(), "image")
        ));
        Ok(status)
    })
}

async fn described(
    context: &Context,
    engine: &Engine,
    planned: &PlannedStack,
    target: &StackTarget,
    logins: &ClientConfig,
    artifacts: &Artifacts,
) -> Result<Description> {
    let reference = target.designation.to_string();
    let there = planned.state.get(&target.designation).and_then(Option::as_ref);
    let Some(there) = there else {
        return Err(Error::failed(format!("there is no {reference} in its registry"))
            .hint(hint!("build it first: build-stack {}", target.name)));
    };
    image::bring(engine, logins, &reference, &there.manifest, &context.printer).await?;
    let parent = target.parent.and_then(|parent| planned.stack.targets.get(parent));
    let kept = KeptImage {
        spec: &planned.stack.spec,
        target,
        parent,
        reference: &reference,
        digest: Some(&there.manifest),
        before: None,
        registries: Some(&planned.registries),
        artifacts,
    };
    manifests::keep(context, engine, &kept).await
}
