//! Coming back to a container in the foreground, whose connection was lost or whose run-image was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ListContainersOptions;

use super::{bind_mounts, ports};
use crate::agent::holder::Holder;
use crate::config::project::Project;
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::container;
use crate::docker::containers::foreground::{self, Foreground, FoundContainer};
use crate::docker::containers::heard::{OutputCounter, Positions};
use crate::docker::containers::terminal::Signals;
use crate::docker::containers::{LABEL_NOTEBOOK, LABEL_PROJECT, LABEL_USER};
use crate::env::Env;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::hint;
use crate::ops::build;
use crate::ops::run_records::{Fate, GLANCE, RunRecord, RunRecords, fate, way_back, way_to_end};
use crate::ops::sync::DockedProject;
use crate::output::{Printer, visible};

/// How long it may take to hear what became of a container whose connection was lost.
const LOOK: Duration = Duration::from_secs(10);
/// So many are named where there is a choice.
const NAMED: usize = 10;

/// Says what became of a container whose connection was lost, as an error with a code of its own.
pub(super) async fn lost(
    context: &Context,
    engine: &Engine,
    records: &RunRecords,
    record: &RunRecord,
    cause: Error,
) -> Error {
    let printer = &context.printer;
    let place = engine.choice().place();
    printer.note(&format!(
        "the connection to {} was lost; asking {place} about it",
        record.name
    ));
    let asking = async {
        let again = context.connect().await?;
        fate(&again, &record.id).await
    };
    let fate = match tokio::time::timeout(LOOK, asking).await {
        Ok(Ok(fate)) => fate,
        Ok(Err(_)) | Err(_) => Fate::Unknown,
    };
    let (name, what) = (
        visible(&record.name),
        format!("the connection to container {}", record.name),
    );
    let message = match fate {
        Fate::Running => format!("{what} on {place} was lost: it goes on there"),
        Fate::Ended(code) => format!("{what} on {place} was lost: it has ended since, with code {code}"),
        Fate::Removed => format!(
            "{what} on {place} was lost: it has ended since, and the engine has removed it with its last output (--rm)"
        ),
        Fate::NotStarted => format!("{what} on {place} was lost before it was started"),
        Fate::Unknown => format!("{what} was lost, and {place} does not answer: whether it goes on there is not known"),
    };
    let back = way_back(context.dock.as_deref(), &name);
    let hint = match fate {
        Fate::Running | Fate::Unknown => format!("{back}\nor, to end it: {}", way_to_end(context, &name)),
        Fate::Ended(_) => format!("{back} shows the rest of its output"),
        Fate::Removed => "use --keep for containers that should outlive a lost link".to_owned(),
        Fate::NotStarted => way_to_end(context, &name),
    };
    match fate {
        Fate::Removed => records.forget(&record.id),
        Fate::NotStarted => {
            // Nothing of it was seen: it is as if it had not been made.
            let removed = match context.connect().await {
                Ok(again) => container::remove(&again, &record.id).await.is_ok(),
                Err(_) => false,
            };
            if removed {
                records.forget(&record.id);
                return Error::unreachable(message).because(cause).hint("run it again");
            }
        }
        Fate::Running | Fate::Ended(_) | Fate::Unknown => {
            let said = RunRecord {
                process: None,
                is_said: true,
                ..record.clone()
            };
            write_down(records, &said, printer);
        }
    }
    if printer.json() {
        printer.error_json(&serde_json::json!({
            "error": message,
            "hint": hint,
            "kind": "connection_lost",
            "dock": record.dock,
            "container": record.name,
            "id": record.id,
            "state": fate.word(),
            "attach": back,
        }));
    }
    printer.detail(&format!("why: {cause}"));
    Error::new(Class::Code(ExitStatus::LINK_LOST.code()), message).hint(hint)
}

/// Goes back to a container of this name or ID; without one, to that of this project that was left.
///
/// # Errors
/// None or several that could be meant, one that is gone; then as for a run.
pub fn attach(context: &Context, name: Option<&str>, watch: bool) -> Result<ExitStatus> {
    let engine_env = &context.env;
    let records = RunRecords::of(engine_env);
    let project = Project::find(&context.working_dir, engine_env).ok();
    let (engine, found, record) = context.block_on(async {
        let engine = context.connect().await?;
        let (found, record) = chosen(context, &engine, &records, name, project.as_ref()).await?;
        Ok((engine, found, record))
    })?;
    if context.global.dry_run {
        let prefix = context.docker_prefix()?;
        let line = hint!("{prefix}docker attach {}", found.name; prefix = prefix);
        context.printer.plan(&[line])?;
        return Ok(ExitStatus::SUCCESS);
    }
    let watch = watch || record.as_ref().is_some_and(|record| record.watch);
    let project = match &record {
        Some(record) => Project::find(&record.root, engine_env).ok().or(project),
        None => project,
    };
    let mut docked = match (&project, watch) {
        (Some(project), true) => Some(DockedProject::open(context, project, false, false)?),
        _ => None,
    };
    let terminal = found.options.stdin;
    context.block_on_uninterrupted(async {
        let running = go_on(context, &engine, &records, found, record, watch);
        match &mut docked {
            Some(docked) => bind_mounts::in_step(context, docked, running, terminal).await,
            None => running.await,
        }
    })
}

async fn go_on(
    context: &Context,
    engine: &Engine,
    records: &RunRecords,
    mut found: FoundContainer,
    record: Option<RunRecord>,
    watch: bool,
) -> Result<ExitStatus> {
    let printer = &context.printer;
    let mut signals = Signals::listen()?;
    let is_ours = found
        .labels
        .get(LABEL_USER)
        .is_some_and(|user| *user == context.env.user());
    found.options.stdin = found.options.stdin && std::io::IsTerminal::is_terminal(&std::io::stdin());
    let mut record = RunRecord {
        process: own_process(),
        is_said: false,
        ..record.unwrap_or_else(|| self::record(engine, &found.id, &found.name, &context.working_dir, watch))
    };
    write_down(records, &record, printer);
    printer.note(&format!(
        "back at container {} on {}",
        found.name,
        engine.choice().place()
    ));
    if found.publishes && found.ended.is_none() {
        let local = build::where_is(engine, &context.env, printer).await == Locality::Local;
        let published = container::published_ports(engine, &found.id).await.unwrap_or_default();
        let ports = ports::reached(context, engine.choice(), local, &found.id, &published).await;
        ports::show(printer, &ports);
    }
    let heard = Arc::new(OutputCounter::from(record.heard));
    printer.give_stdout_away();
    let came = foreground::run_again(engine, &found, is_ours, &mut signals, &heard, printer).await;
    record.heard = heard.positions();
    if let Err(error) = &came
        && error.class() == Class::Failed
        && let Ok(None) = foreground::find(engine, &found.id).await
    {
        return Err(gone(
            context,
            records,
            &found.name,
            &engine.choice().place(),
            Some(record),
        ));
    }
    came_out(context, engine, records, &record, came).await
}

/// What a run in the foreground came to, for the caller; what is over is no longer written down.
pub(super) async fn came_out(
    context: &Context,
    engine: &Engine,
    records: &RunRecords,
    record: &RunRecord,
    came: Result<Foreground>,
) -> Result<ExitStatus> {
    match came {
        Ok(Foreground::Done(status)) => {
            records.forget(&record.id);
            Ok(status)
        }
        Ok(Foreground::Lost(cause)) => Err(lost(context, engine, records, record, cause).await),
        Err(error) => {
            // Whoever ended it while nothing answered has left it there.
            let asking = tokio::time::timeout(GLANCE, fate(engine, &record.id)).await;
            if !matches!(asking, Ok(Ok(Fate::Running)) | Ok(Err(_)) | Err(_)) {
                records.forget(&record.id);
            }
            Err(error)
        }
    }
}

/// This process, as what a container is the foreground of.
pub(super) fn own_process() -> Option<Holder> {
    i32::try_from(std::process::id()).ok().and_then(Holder::of)
}

/// The container that is meant.
async fn chosen(
    context: &Context,
    engine: &Engine,
    records: &RunRecords,
    name: Option<&str>,
    project: Option<&Project>,
) -> Result<(FoundContainer, Option<RunRecord>)> {
    let place = engine.choice().place();
    let left = records.left(engine);
    if let Some(name) = name {
        let record = records
            .all()
            .find(|record| record.name == name || (name.len() >= SHORT_ID && record.id.starts_with(name)));
        if let Some(record) = &record
            && record.process.as_ref().is_some_and(Holder::lives)
        {
            return Err(
                Error::usage(format!("container {name} is in the foreground of another run-image"))
                    .hint(hint!("docker attach {} shares it", name)),
            );
        }
        return match foreground::find(engine, name).await? {
            Some(found) => {
                let record = record.filter(|record| record.id == found.id);
                Ok((found, record))
            }
            None => Err(gone(context, records, name, &place, record)),
        };
    }
    let of_project = |record: &&RunRecord| project.is_none_or(|project| record.root == project.root());
    let (mut there, mut gone_since) = (BTreeMap::new(), Vec::new());
    for record in left.iter().filter(of_project) {
        match foreground::find(engine, &record.id).await? {
            Some(found) => {
                there.insert(found.name.clone(), (found, record.clone()));
            }
            None => gone_since.push(record.clone()),
        }
    }
    if there.len() > 1 {
        let names: Vec<&str> = there.keys().map(String::as_str).take(NAMED).collect();
        return Err(
            Error::usage(format!("several containers were left on {place}: {}", names.join(", ")))
                .hint("name one: run-image --attach NAME"),
        );
    }
    let say_gone = |record: &RunRecord| {
        let error = gone(context, records, &record.name, &place, Some(record.clone()));
        context.printer.note(&error.to_string());
    };
    if let Some((found, record)) = there.into_values().next() {
        gone_since.iter().for_each(say_gone);
        return Ok((found, Some(record)));
    }
    let last = gone_since.pop();
    gone_since.iter().for_each(say_gone);
    match last {
        Some(record) => Err(gone(context, records, &record.name, &place, Some(record.clone()))),
        None => Err(Error::failed(format!(
            "no run-image of this project was cut off from a container on {place}"
        ))
        .hint(hint!(
            "name one that runs: run-image --attach NAME; docker ps --filter label={LABEL_USER}={} lists yours",
            context.env.user();
            LABEL_USER = LABEL_USER
        ))),
    }
}

/// The names of a project's running containers that `run-image --attach` can go back to: not those that another run-image has
/// in the foreground.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn attachable(engine: &Engine, env: &Env, project: &Project) -> Result<Vec<String>> {
    let listing = engine.docker().list_containers(None::<ListContainersOptions>);
    let running = listing.await.map_err(|cause| engine.error("its containers", cause))?;
    let own = [(LABEL_PROJECT, project.name()), (LABEL_USER, project.user().to_owned())];
    let records = RunRecords::of(env);
    let is_taken = |record: &RunRecord| record.process.as_ref().is_some_and(Holder::lives);
    let taken: Vec<String> = records.all().filter(is_taken).map(|record| record.id).collect();
    let names = running.into_iter().filter_map(|container| {
        let labels = container.labels?;
        let is_own =
            own.iter().all(|(label, value)| labels.get(*label) == Some(value)) && !labels.contains_key(LABEL_NOTEBOOK);
        let is_free = !container.id.is_some_and(|id| taken.contains(&id));
        let name = container.names?.into_iter().next()?;
        (is_own && is_free).then(|| name.trim_start_matches('/').to_owned())
    });
    Ok(names.collect())
}

/// A part of an ID that docker shows.
const SHORT_ID: usize = 12;

fn gone(context: &Context, records: &RunRecords, name: &str, place: &str, record: Option<RunRecord>) -> Error {
    match record {
        Some(record) => {
            records.forget(&record.id);
            Error::failed(format!(
                "container {name} has ended meanwhile, and the engine of {place} has removed it (--rm): its exit code and its \
                 last output are gone"
            ))
            .hint("use --keep for containers that should outlive a lost link")
        }
        None => {
            let user = context.env.user();
            Error::failed(format!("there is no container {name} on {place}"))
                .hint(hint!("docker ps --filter label={label}={} lists yours", user; label = LABEL_USER))
        }
    }
}

/// What a container in the foreground is written down as.
pub(super) fn record(engine: &Engine, id: &str, name: &str, root: &Path, watch: bool) -> RunRecord {
    RunRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        engine: engine.choice().endpoint.to_string(),
        dock: engine.choice().dock().map(str::to_owned),
        root: root.to_owned(),
        watch,
        heard: Positions::default(),
        process: own_process(),
        is_said: false,
    }
}

/// Writes a run down; that it can't be is no failure of it.
pub(super) fn write_down(records: &RunRecords, record: &RunRecord, printer: &Printer) {
    if let Err(cause) = records.keep(record) {
        printer.detail(&format!("the run can't be recorded: {cause}"));
    }
}
