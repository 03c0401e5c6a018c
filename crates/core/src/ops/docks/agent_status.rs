//! What the agents of several docks say of themselves, without starting one for it.

use crate::agent::Status;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docks::{Dock, Docks};
use crate::error::Result;
use crate::output::visible;

/// How the agent of a dock was found.
#[derive(Debug)]
pub(super) enum FoundAgent {
    /// The dock has none: its engine is reached by TCP, or as a docker context says.
    None,
    /// It does not run.
    Ended,
    /// It runs, and is so.
    Running(Box<Status>),
}

/// Asks the agents of these docks, of all where none is named. With `--dry-run` it prints that, and gives nothing.
///
/// # Errors
/// A damaged list, a dock that is not in it, an agent that does not answer.
pub(super) fn ask(context: &Context, names: &[String]) -> Result<Option<Vec<(Dock, FoundAgent)>>> {
    let (printer, env) = (&context.printer, &context.env);
    let list = Docks::read(env)?;
    let docks: Vec<&Dock> = match names {
        [] => list.iter().collect(),
        names => names.iter().map(|name| list.get(name)).collect::<Result<_>>()?,
    };
    if context.global.dry_run {
        let asked = docks
            .iter()
            .map(|dock| format!("ask the agent of {}", visible(&dock.moniker)));
        printer.plan(&asked.collect::<Vec<String>>())?;
        return Ok(None);
    }
    let found = context.block_on(async {
        let mut found = Vec::new();
        for dock in docks {
            let agent = match dock_engine::agent(dock, env)? {
                None => FoundAgent::None,
                Some(agent) => match agent.status(false).await? {
                    None => FoundAgent::Ended,
                    Some(status) => FoundAgent::Running(Box::new(status)),
                },
            };
            found.push((dock.clone(), agent));
        }
        Ok(found)
    })?;
    Ok(Some(found))
}
