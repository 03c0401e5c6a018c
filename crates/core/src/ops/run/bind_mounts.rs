//! Bind mounts of a docked `run-image`: what lies in the project is mounted from its copy on the dock.
//!
//! An engine that is told to mount a directory which its machine does not have makes an empty one, silently. So what lies
//! in the project is sent first and mounted from the workspace; anything else must be there, or the run is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::plan;
use crate::agent::target::Exit;
use crate::agent::{Agent, CallOptions};
use crate::config::project::Project;
use crate::config::variables::Word;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::options::run_options::with_other_sources;
use crate::docks::{Dock, MountPaths};
use crate::env::Env;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::hint;
use crate::ops::docks::remote_script;
use crate::ops::sync::{self, DockedProject};
use crate::output::visible;
use crate::shell;
use crate::sync::manifest::Memory;
use crate::sync::plan::Direction;
use crate::sync::request::RoundRequest;
use crate::sync::rhythm::POLL;

/// How long looking for directories there may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Names the paths that are not there, each on a line.
const MISSING: &str = r#"for p; do if [ ! -e "$p" ]; then printf '%s\n' "$p"; fi; done"#;

/// The sources of these options, absolute, with the words that they are of.
fn sources(options: &[Word], project: &Project, env: &Env) -> Result<Vec<String>> {
    let mut found = Vec::new();
    translated(options, project, env, |source| {
        found.push(source.to_owned());
        None
    })?;
    Ok(found)
}

/// The options with other sources; variables stay by name in the words that do not change.
fn translated(
    options: &[Word],
    project: &Project,
    env: &Env,
    other: impl FnMut(&str) -> Option<String>,
) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut lengths = Vec::new();
    for option in options {
        let expanded = option.expand(env).map_err(|cause| plan::variable_error("", &cause))?;
        lengths.push(expanded.len());
        words.extend(expanded);
    }
    let changed = with_other_sources(&words, project.root(), other)
        .map_err(|cause| Error::usage(plan::masked(options, &cause, env)))?;
    let mut pairs = words.into_iter().zip(changed);
    let mut result = Vec::new();
    for (option, length) in options.iter().zip(lengths) {
        let own: Vec<(String, String)> = pairs.by_ref().take(length).collect();
        if own.iter().all(|(before, after)| before == after) {
            result.push(option.clone());
        } else {
            result.extend(own.into_iter().map(|(_, after)| Word::literal(after)));
        }
    }
    Ok(result)
}

/// A path of the workspace in place of one of the project.
fn there(source: &str, project: &Project, workspace: &str) -> Option<String> {
    let inside = Path::new(source).strip_prefix(project.root()).ok()?.to_str()?;
    Some(match inside {
        "" => workspace.to_owned(),
        inside => format!("{workspace}/{inside}"),
    })
}

/// The dock of a docked call, where its files can be reached.
pub(in crate::ops) fn dock_with_files(context: &Context) -> Result<Option<(Dock, Agent)>> {
    let Ok(dock) = sync::dock_of(context) else {
        return Ok(None);
    };
    Ok(dock_engine::agent(&dock, &context.env)?.map(|agent| (dock, agent)))
}

/// Sends the project where options mount it, and puts the workspace's paths in their place. Gives the session, where
/// something of the project is mounted.
///
/// # Errors
/// A dock that can't be reached, or has no such source; a sync that fails.
pub async fn mount(
    context: &Context,
    project: &Project,
    options: &mut Vec<Word>,
    env: &Env,
) -> Result<Option<DockedProject>> {
    let found = sources(options, project, env)?;
    if found.is_empty() {
        return Ok(None);
    }
    let is_inside = |source: &String| Path::new(source).starts_with(project.root());
    let Some((dock, agent)) = dock_with_files(context)? else {
        if let Some(source) = found.iter().find(|source| is_inside(source)) {
            context.printer.warning(&format!(
                "the engine is on another machine, which has its own {source} or will make an empty one: \
                 files are only synced to docks that ssh reaches"
            ));
        }
        return Ok(None);
    };
    let mut session = None;
    let mut workspace = String::new();
    if found.iter().any(is_inside) {
        let mut docked = tokio::task::block_in_place(|| DockedProject::open(context, project, true, false))?;
        let report = docked.sync(RoundRequest::everything(Direction::Up)).await?;
        sync::show_briefly(&context.printer, &docked.dock, &report);
        // Until the container is made, others sync themselves.
        docked.finish().await;
        workspace.clone_from(&report.workspace);
        *options = translated(options, project, env, |source| there(source, project, &workspace))?;
        session = Some(docked);
    }
    let places: BTreeMap<String, &String> = found
        .iter()
        .map(|source| {
            (
                there(source, project, &workspace).unwrap_or_else(|| source.clone()),
                source,
            )
        })
        .collect();
    let asked: Vec<&str> = places.keys().map(String::as_str).collect();
    let output = remote_script::run(&agent, MISSING, &asked, &CallOptions::of_terminal(), LIMIT).await?;
    if output.exit != Exit::Code(0) {
        return Err(Error::failed(format!(
            "dock {:?} did not report which paths it has to mount",
            dock.moniker
        )));
    }
    match output.stdout.lines().find_map(|line| Some((line, places.get(line)?))) {
        None => Ok(session),
        Some((place, source)) => Err(missing(&dock, place, source, is_inside(source))),
    }
}

fn missing(dock: &Dock, place: &str, source: &str, inside: bool) -> Error {
    let make = format!(
        "ssh-dock {} mkdir -p {}",
        shell::quote(&dock.moniker),
        shell::quote(&shell::quote(place))
    );
    let error = Error::failed(format!(
        "dock {:?} has no {}, which is to be mounted",
        dock.moniker,
        visible(place)
    ));
    match inside {
        true => error.hint(hint!(
            "{source} is not there either, or .dockerignore leaves it out; else: {make}";
            source = source,
            make = make
        )),
        false => error.hint(hint!(
            "put it there, or name another one in volumes_docked; for an empty one: {make}";
            make = make
        )),
    }
}

/// The options as a docked run would have them, as far as that is known without asking the dock.
///
/// # Errors
/// Options that docker would refuse.
pub fn planned(context: &Context, project: &Project, options: &[Word], env: &Env) -> Result<Vec<Word>> {
    let Some((dock, _)) = dock_with_files(context)? else {
        return Ok(options.to_vec());
    };
    let root = project
        .root()
        .canonicalize()
        .unwrap_or_else(|_| project.root().to_owned());
    let workspace = Memory::peek(&root, &dock.moniker, &context.env)
        .manifest()
        .header
        .workspace;
    if workspace.is_empty() {
        if sources(options, project, env)?
            .iter()
            .any(|source| Path::new(source).starts_with(project.root()))
        {
            context
                .printer
                .note("where the project's copy on the dock will be is known after the first sync-up");
        }
        return Ok(options.to_vec());
    }
    translated(options, project, env, |source| there(source, project, &workspace))
}

/// What stands before `docker` in the printed line, so that docker's own client has the same mounted. A dock's agent knows this
/// command, whose paths are the dock's; those of any other program it takes for this machine's where they are in a project or
/// about the home directory.
///
/// # Errors
/// A list of docks that can't be read.
pub fn variable(context: &Context, project: &Project, options: &[Word], env: &Env) -> Result<&'static str> {
    let Some((dock, _)) = dock_with_files(context)? else {
        return Ok("");
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let memory = Memory::peek(&real(project.root()), &dock.moniker, &context.env);
    let workspace = memory.header().map(|header| header.workspace).unwrap_or_default();
    let home = real(&env.home());
    let is_taken_for_here = |source: &String| {
        let source = Path::new(source);
        let is_copy = !workspace.is_empty() && source.starts_with(&workspace);
        let found = real(source);
        let is_at_home = found.starts_with(&home) || home.starts_with(&found);
        let is_in_project = || found.ancestors().any(|folder| folder.join(".git").exists());
        !is_copy && !source.starts_with(project.root()) && (is_at_home || is_in_project())
    };
    let is_needed = dock.mounts != MountPaths::Literal && sources(options, project, env)?.iter().any(is_taken_for_here);
    Ok(if is_needed { "DOCK_MOUNTS=literal " } else { "" })
}

/// Whether the container goes its own way.
pub(in crate::ops) fn is_cut_off(error: &Error) -> bool {
    error.class() == Class::Code(ExitStatus::LINK_LOST.code())
}

/// Keeps both sides in step while a container runs, and brings what it made when it has ended.
///
/// # Errors
/// Those of the run itself; what does not travel is a warning.
pub async fn in_step(
    context: &Context,
    docked: &mut DockedProject,
    run: impl Future<Output = Result<ExitStatus>>,
    terminal: bool,
) -> Result<ExitStatus> {
    let printer = context.printer.clone();
    printer.note(&format!(
        "the project is kept in step; the dock is checked every {} s",
        POLL.as_secs()
    ));
    let dock = docked.dock.clone();
    docked.silence(terminal);
    let status = {
        // A terminal belongs to the container: what is to be said is said at its end.
        let told = |event| {
            if !terminal {
                sync::tell(&printer, &dock, event);
            }
        };
        let quiet = printer.quieted();
        let watching = async {
            match docked.watch(if terminal { &quiet } else { &printer }, told).await {
                Ok(never) => match never {},
                Err(error) => {
                    if !terminal {
                        printer.error(&error);
                    }
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            status = run => status,
            () = watching => Err(Error::failed("the watch has ended")),
        }
    };
    // A round may have been cut off.
    docked.let_go();
    docked.silence(false);
    if status.as_ref().is_err_and(is_cut_off) {
        context.printer.note(
            "files of the container come when it ends: run-image --attach goes back to it, sync-down brings them now",
        );
        return status;
    }
    last_round(context, docked, Direction::Both).await;
    status
}

/// Syncs at a container's end; what can't be brought is said, with how it comes later.
pub(in crate::ops) async fn last_round(context: &Context, docked: &mut DockedProject, direction: Direction) {
    let syncing = async {
        tokio::select! {
            synced = docked.sync(RoundRequest::everything(direction)) => synced,
            _ = tokio::signal::ctrl_c() => Err(Error::interrupted()),
        }
    };
    match syncing.await {
        Ok(report) => sync::show_briefly(&context.printer, &docked.dock, &report),
        Err(error) => {
            context.printer.error(&error);
            context
                .printer
                .warning("what the container made is still on the dock: sync-down brings it");
        }
    }
    docked.finish().await;
}
