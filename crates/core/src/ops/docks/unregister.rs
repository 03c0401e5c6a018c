//! Taking a dock off the list.

use crate::context::Context;
use crate::docker::connect::{context_store, dock_engine, systemd_units};
use crate::docks::{self, Access, Docks};
use crate::error::{ExitStatus, Result};
use crate::output::visible;

/// Takes a dock off the list, registered or the original's; an unknown one is no failure, as in the original.
///
/// # Errors
/// A damaged list, or files that can't be removed.
pub fn unregister(context: &Context, name: &str) -> Result<ExitStatus> {
    let (printer, env) = (&context.printer, &context.env);
    let found = Docks::read(env)?;
    // One whose name means this machine by now can be taken off, too.
    let Some(dock) = found.of_moniker(name).or_else(|| found.find(name)) else {
        // The original's own words; scripts know them.
        if printer.json() {
            printer.result_json(&serde_json::json!({ "removed": null }))?;
        } else {
            printer.result("No moniker found");
        }
        return Ok(ExitStatus::SUCCESS);
    };
    let original = found
        .originals
        .iter()
        .find(|original| original.dock == *dock && !found.registered.contains(dock));
    let shown = visible(&dock.moniker);
    let what = match original {
        Some(original) => format!("remove {}", original.file.display()),
        None => format!("remove {shown} from {}", docks::list(env).file().display()),
    };
    if context.global.dry_run {
        printer.plan(&[what])?;
        return Ok(ExitStatus::SUCCESS);
    }
    match original {
        Some(original) => original.remove()?,
        None => docks::list(env).change(|list| {
            list.retain(|other| other.moniker != dock.moniker);
            Ok(())
        })?,
    }
    context.block_on(async {
        if let Some(agent) = dock_engine::agent(dock, env)? {
            // Before the agent, which would be started again.
            if let Err(error) = systemd_units::remove(&agent, env).await {
                printer.warning(&error.to_string());
            }
            // The entry is gone; an agent that does not end tells so, and does no harm.
            if let Err(error) = agent.remove().await {
                printer.warning(&error.to_string());
            }
        }
        Ok(())
    })?;
    if !matches!(dock.access, Access::Context { .. }) && context_store::remove(&dock.moniker, env)? {
        printer.note(&format!("removed the docker context {shown}, too"));
    }
    if printer.json() {
        printer.result_json(&serde_json::json!({ "removed": dock.moniker }))?;
    } else {
        printer.result(&format!(
            "{shown} ({}) is not a dock any more",
            visible(&dock.access.place())
        ));
    }
    if docks::current(env) == Some(dock.moniker.as_str()) {
        printer.warning("this shell is still docked to it: castoff");
    }
    Ok(ExitStatus::SUCCESS)
}
