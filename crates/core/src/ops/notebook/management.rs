//! The notebooks that a user has on an engine: listed, and ended.

use std::time::Duration;

use super::foreground::warn_of_work;
use super::servers::{self, FoundNotebook, NotebookServer};
use super::start::of_project;
use super::stop::{self, Stopped};
use crate::config::project::Project;
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::terminal::Signals;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::ops::build;
use crate::ops::run::bind_mounts;
use crate::ops::run_records::connect_and_remind;
use crate::ops::sync::DockedProject;
use crate::output::table::{Align, Table};
use crate::output::visible;
use crate::sync::plan::Direction;

/// Lists the notebooks of this user on the engine of the call.
///
/// # Errors
/// An engine that can't be reached. What one server does not say is a field of it.
pub fn list(context: &Context) -> Result<ExitStatus> {
    let servers = context.block_on(async {
        let engine = connect_and_remind(context).await?;
        let local = build::where_is(&engine, &context.env, &context.printer).await == Locality::Local;
        let found = servers::find(&engine, &context.env.user(), None).await?;
        Ok(servers::describe_all(context, &engine, local, &found).await)
    })?;
    let printer = &context.printer;
    if printer.json() {
        printer.result_json(&servers)?;
        return Ok(ExitStatus::SUCCESS);
    }
    if servers.is_empty() {
        printer.note("no notebooks run there: run-notebook starts one");
        return Ok(ExitStatus::SUCCESS);
    }
    let mut table = Table::new([
        ("CONTAINER", Align::Left),
        ("IMAGE", Align::Left),
        ("IDLE", Align::Right),
        ("KERNELS", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("URL", Align::Left),
    ])
    .dropping(["IMAGE", "CONNECTIONS", "KERNELS"]);
    for server in &servers {
        table.row(cells(server));
    }
    printer.table(&table);
    Ok(ExitStatus::SUCCESS)
}

fn cells(server: &NotebookServer) -> [String; 6] {
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        visible(&server.container),
        visible(&server.image),
        server.idle_seconds.map(duration).unwrap_or_default(),
        number(server.kernels),
        number(server.connections),
        match (&server.url, &server.error) {
            (Some(url), None) => url.clone(),
            (_, Some(error)) => visible(error),
            (None, None) => String::new(),
        },
    ]
}

/// Seconds, in the largest units that say something: `5 s`, `12 min`, `3 h 5 min`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Ends a notebook of this user: the one of this name, or the one of this project.
///
/// # Errors
/// None or several that could be meant, and one that can't be ended.
pub fn stop(context: &Context, name: Option<&str>) -> Result<ExitStatus> {
    let project = Project::find_or_folder(&context.working_dir, &context.env).ok();
    let (engine, found, local) = context.block_on(async {
        let engine = connect_and_remind(context).await?;
        let local = build::where_is(&engine, &context.env, &context.printer).await == Locality::Local;
        let found = chosen(context, (&engine, local), project.as_ref(), name).await?;
        Ok((engine, found, local))
    })?;
    if context.global.dry_run {
        let prefix = context.docker_prefix()?;
        let line = hint!("{prefix}docker stop {}", found.name; prefix = prefix);
        context.printer.plan(&[line])?;
        return Ok(ExitStatus::SUCCESS);
    }
    let is_own = |project: &&Project| found.project.as_deref() == Some(project.name().as_str());
    let mut docked = match (local, project.as_ref().filter(is_own)) {
        (false, Some(project)) if matches!(bind_mounts::dock_with_files(context), Ok(Some(_))) => {
            Some(DockedProject::open(context, project, false, false)?)
        }
        _ => None,
    };
    context.block_on_uninterrupted(async {
        let mut signals = Signals::listen()?;
        let reaching = async { Ok(found.reach(context, &engine, local).await.ok()) };
        let reached = signals.guard(Duration::ZERO, reaching).await?;
        let client = reached.and_then(|(ready, token)| ready.client(&token));
        let mut server = found.describe(context, &engine, local).await;
        if let Some(client) = &client {
            warn_of_work(context, client).await;
        }
        let printer = &context.printer;
        let stopped = stop::stop(
            &engine,
            &found.id,
            &found.name,
            client.as_ref(),
            signals.ending(),
            printer,
        )
        .await;
        if let Some(docked) = &mut docked
            && stopped.is_ok()
        {
            bind_mounts::last_round(context, docked, Direction::Down).await;
        }
        if printer.json() {
            server.error = stopped.as_ref().err().map(Error::with_causes);
            printer.result_json(&server)?;
        }
        let stopped = stopped?;
        if !printer.json() {
            let how = match stopped {
                Stopped::Killed => "killed",
                Stopped::WasGone => "had ended before",
                _ => "stopped",
            };
            printer.result(&format!("{}: {how}", found.name));
        }
        Ok(ExitStatus::SUCCESS)
    })
}

/// The notebook that is meant.
async fn chosen(
    context: &Context,
    (engine, local): (&Engine, bool),
    project: Option<&Project>,
    name: Option<&str>,
) -> Result<FoundNotebook> {
    let place = engine.choice().place();
    let user = context.env.user();
    let mut found = match (name, project) {
        (None, Some(project)) => of_project(context, engine, project, local).await?,
        // Outside of a project, the only one is meant.
        (Some(_), _) | (None, None) => servers::find(engine, &user, None).await?,
    };
    if let Some(name) = name {
        found.retain(|found| found.name == name);
    }
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|found| visible(&found.name)).collect();
        return Err(
            Error::usage(format!("several notebooks run on {place}: {}", names.join(", ")))
                .hint("name one: run-notebook --stop NAME"),
        );
    }
    found.pop().ok_or_else(|| {
        let what = match name {
            Some(name) => format!("no notebook {name} of {user} runs on {place}"),
            None if project.is_some() => format!("no notebook of this project runs on {place}"),
            None => format!("no notebook of {user} runs on {place}"),
        };
        Error::failed(what).hint("run-notebook --list shows those that run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_times_are_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (11_100, "3 h 5 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
