//! Keeping a project and its copy on a dock in step: `sync-up` and `sync-down`.

mod restore;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::agent::place::state_directory;
use crate::agent::{Agent, CallOptions};
use crate::cli::Context;
use crate::config::own::OwnConfiguration;
use crate::config::project::Project;
use crate::docker::docked;
use crate::docker::endpoint::Endpoint;
use crate::docks::{self, Dock, Docks};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::machine_id::machine_id;
use crate::ops::genversion;
use crate::output::{Printer, size, visible};
use crate::patience::patiently;
use crate::shell;
use crate::sync::far::DockShell;
use crate::sync::local::Local;
use crate::sync::manifest::Memory;
use crate::sync::plan::{Action, Direction, Place, Why, Wish};
use crate::sync::rsync::Rsync;
use crate::sync::send::Generated;
use crate::sync::session::{Report, Session, Target};
use crate::sync::shown;
use crate::sync::trash::Trash;
use crate::sync::watch::{self, Event, POLL};
use crate::version::{Versioneer, file};

/// So many paths are named of a round of watching.
const NAMED: usize = 8;

/// What sync-up and sync-down are asked for.
#[derive(Clone, Debug)]
pub struct SyncArgs {
    /// Which way.
    pub direction: Direction,
    /// Show what would be done.
    pub list: bool,
    /// Go on, both ways, until interrupted.
    pub watch: bool,
    /// Bring back what earlier syncs took, on the side that this one would change.
    pub restore: bool,
    /// Whose version wins where both sides changed.
    pub settle: Option<Place>,
    /// Remove however much the other side has removed.
    pub delete: bool,
    /// git's own files travel, too.
    pub with_git: bool,
    /// Only these paths; empty for all.
    pub paths: Vec<PathBuf>,
}

/// What a session is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sync, with the version file as a build would have it.
    SyncWithVersion,
    /// To sync, with the version file as it is.
    Sync,
    /// To look: nothing changes on either side, and whatever syncs goes on.
    Look,
}

/// The result in JSON.
#[derive(Serialize)]
struct Document<'a> {
    dock: &'a str,
    workspace: &'a str,
    sent: Vec<String>,
    removed_there: Vec<String>,
    brought: Vec<String>,
    removed_here: Vec<String>,
    modes: Vec<String>,
    conflicts: Vec<JsonConflict>,
    kept_here: Vec<String>,
    kept_there: Vec<String>,
    failed: Vec<JsonFailure>,
    changed_here: usize,
    changed_there: usize,
    bytes_sent: u64,
    bytes_brought: u64,
}

#[derive(Serialize)]
struct JsonConflict {
    path: String,
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<String>,
}

#[derive(Serialize)]
struct JsonFailure {
    path: String,
    why: String,
}

/// A project, the dock that a call is for, and a session of both.
pub struct Docked {
    /// The dock.
    pub dock: Dock,
    /// The session.
    pub session: Session<DockShell>,
}

impl Docked {
    /// Opens a session of a project and the dock that the call is for.
    ///
    /// # Errors
    /// No dock, one without ssh, another sync of the same; a version that can't be made.
    pub fn open(context: &Context, project: &Project, purpose: Purpose) -> Result<Self> {
        let dock = dock_of(context)?;
        let agent = docked::agent(&dock, &context.env)?.ok_or_else(|| without_ssh(&dock))?;
        Self::of(context, project, dock, agent, purpose)
    }

    fn of(context: &Context, project: &Project, dock: Dock, agent: Agent, purpose: Purpose) -> Result<Self> {
        let local =
            Local::open(project.root()).map_err(|cause| Error::failed("the project can't be opened").because(cause))?;
        let memory = if purpose == Purpose::Look {
            Memory::peek(local.root(), &dock.moniker, &context.env)
        } else {
            let memory = Memory::open(local.root(), &dock.moniker, &context.env)?;
            local.clean();
            memory
        };
        let target = Target {
            moniker: dock.moniker.clone(),
            base: dock.workspace.clone(),
            user: project.user().to_owned(),
            project: project.name(),
            machine: machine_id(&context.env)?,
        };
        let options = CallOptions::of_terminal();
        let rsync = Rsync::by_ssh_dock(&dock.moniker, &context.env);
        let mut session = Session::new(DockShell { agent, options }, local, memory, target);
        session.rsync = rsync;
        let own = OwnConfiguration::read(&context.env)?.sync;
        session.brake = own.remove_unasked.into();
        session.with_git = own.with_git;
        if purpose != Purpose::Look {
            session.trash = Some(Trash::open(
                &state_directory(&context.env),
                project.root(),
                Some(&dock.moniker),
            ));
        }
        session.generated = generated(project, purpose == Purpose::SyncWithVersion, &context.printer)?;
        let printer = context.printer.clone();
        session.notice = Arc::new(move |line| printer.note(line));
        Ok(Self { dock, session })
    }
}

impl Docked {
    /// Syncs, from a fresh look on. A link that is cut is waited for: what has arrived stays, and every file is whole.
    ///
    /// # Errors
    /// As [`Session::sync`].
    pub async fn sync(&mut self, printer: &Printer, wish: &Wish<'_>, dry: bool) -> Result<Report> {
        let shell = self.session.shell().clone();
        // A dock that can't be reached to begin with is not waited for.
        shell.agent.connect(&shell.options).await?;
        patiently(
            async || self.session.sync(wish, dry).await,
            async || shell.agent.connect(&shell.options).await,
            |line| printer.warning(line),
        )
        .await
    }
}

/// The version file's place in the project, and what the dock gets there.
fn generated(project: &Project, writes: bool, printer: &Printer) -> Result<Option<Generated>> {
    let Some(versioneer) = Versioneer::find(project.root())? else {
        return Ok(None);
    };
    if writes {
        // What a build would have in its context.
        genversion::before_build(project, printer)?;
    }
    let versions = versioneer.versions()?;
    let path = below_root(Path::new(versioneer.source())).map(|path| Generated {
        path,
        text: file::text(&versions).into_bytes(),
    });
    Ok(path)
}

/// A path of the project, without `.` and `..`; none for one that leads out, and for the root itself.
fn below_root(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut names: Vec<&[u8]> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.as_bytes()),
            Component::CurDir => {}
            Component::ParentDir => drop(names.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!names.is_empty()).then(|| names.join(&b'/'))
}

/// The dock that a call is for: that of `--dock`, the one that the shell is docked to, or the one whose engine the
/// environment chooses.
///
/// # Errors
/// There is none.
pub fn dock_of(context: &Context) -> Result<Dock> {
    let env = &context.env;
    let docks = Docks::read(env)?;
    if let Some(name) = &context.dock {
        return docks.get(name).cloned();
    }
    if let Some(dock) = dock_of_engine(env)? {
        return Ok(dock);
    }
    match docks::current(env) {
        Some(name) => docks.get(name).cloned(),
        None => Err(Error::usage("there is no dock to sync with: this shell is not docked")
            .hint("name one with --dock NAME, or dock to it with: source dock NAME")),
    }
}

/// The dock whose agent's socket the environment leads to.
fn dock_of_engine(env: &Env) -> Result<Option<Dock>> {
    match Endpoint::choose(env).map(|choice| choice.endpoint) {
        Ok(Endpoint::Unix(socket)) => Ok(docked::agent_of_socket(&socket, env)?.map(|agent| agent.dock().clone())),
        // What is wrong with the engine's address is no matter of a sync.
        _ => Ok(None),
    }
}

fn without_ssh(dock: &Dock) -> Error {
    Error::failed(format!(
        "dock {:?} ({}) is reached by its engine alone, and files travel by ssh",
        dock.moniker,
        visible(&dock.access.place())
    ))
    .hint(hint!(
        "register it by ssh: register-dock USER@HOST {} --force",
        dock.moniker
    ))
}

/// Syncs the project around the working directory.
///
/// # Errors
/// No project, no dock, a dock that can't be reached; conflicts, after the rest has travelled.
pub fn sync(context: &Context, args: &SyncArgs) -> Result<ExitStatus> {
    if args.restore {
        return restore::restore(context, args);
    }
    let project = Project::find(&context.working_dir, &context.env)?;
    let only = wanted(context, &project, &args.paths)?;
    let dry = args.list || context.global.dry_run;
    let up = args.direction == Direction::Up;
    let purpose = match (dry, up) {
        (true, _) => Purpose::Look,
        (false, true) => Purpose::SyncWithVersion,
        (false, false) => Purpose::Sync,
    };
    let mut docked = Docked::open(context, &project, purpose)?;
    docked.session.with_git |= args.with_git;
    let wish = Wish {
        direction: args.direction,
        settle: args.settle,
        only: &only,
        brake: (!args.delete).then_some(docked.session.brake),
    };
    let report = context.block_on(docked.sync(&context.printer, &wish, dry))?;
    if dry {
        return listed(context, &docked.dock, &report);
    }
    show(&context.printer, &docked.dock, &report, args.direction)?;
    if !args.watch {
        return judged(&docked.dock, &report, args.direction);
    }
    let printer = context.printer.clone();
    printer.note(&format!(
        "watching {}; the dock is looked at every {} s. Ctrl-C ends it",
        project.root().display(),
        POLL.as_secs()
    ));
    let dock = docked.dock.clone();
    context.block_on(async { match watch::watch(&mut docked.session, |event| tell(&printer, &dock, event)).await {} })
}

/// The paths that were named, seen from the root.
fn wanted(context: &Context, project: &Project, paths: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut only = Vec::new();
    for path in paths {
        let full = context.working_dir.join(path);
        let inside = full.strip_prefix(project.root()).ok();
        match inside.map(below_root) {
            Some(Some(path)) => only.push(path),
            // The root, in whatever words.
            Some(None) if !inside.is_some_and(|path| path.components().any(|part| part == Component::ParentDir)) => {
                return Ok(Vec::new());
            }
            _ => {
                return Err(Error::usage(format!("{} is not in the project", path.display()))
                    .hint(hint!("the project is {}", project.root().display())));
            }
        }
    }
    Ok(only)
}

/// Says what would be done.
fn listed(context: &Context, dock: &Dock, report: &Report) -> Result<ExitStatus> {
    let printer = &context.printer;
    if printer.json() {
        printer.result_json(&document(dock, report))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for (path, action) in &report.done {
        printer.result(&line(path, *action));
    }
    for conflict in &report.conflicts {
        printer.result(&format!(
            "conflict     {}: {}",
            shown(&conflict.path),
            conflict.why.text()
        ));
    }
    for (kept, side) in [(&report.held_here, "keep here"), (&report.held_there, "keep there")] {
        for path in kept {
            printer.result(&format!(
                "{side:<12} {}: removed on the other side with many others",
                shown(path)
            ));
        }
    }
    Ok(ExitStatus::SUCCESS)
}

fn line(path: &[u8], action: Action) -> String {
    let word = match action {
        Action::Send(_) => "send",
        Action::RemoveThere => "remove there",
        Action::ModeThere(mode) => return format!("chmod {mode:o} there {}", shown(path)),
        Action::Bring(_) => "bring",
        Action::RemoveHere => "remove here",
        Action::ModeHere(mode) => return format!("chmod {mode:o} here {}", shown(path)),
        Action::Agree | Action::Forget | Action::Conflict(_) | Action::Later(_) | Action::Held(_) => "",
    };
    format!("{word:<12} {}", shown(path))
}

fn document<'a>(dock: &'a Dock, report: &'a Report) -> Document<'a> {
    let paths = |wanted: fn(&Action) -> bool| {
        let paths = report.done.iter().filter(|(_, action)| wanted(action));
        paths.map(|(path, _)| text(path)).collect()
    };
    Document {
        dock: &dock.moniker,
        workspace: &report.workspace,
        sent: paths(|action| matches!(action, Action::Send(_))),
        removed_there: paths(|action| *action == Action::RemoveThere),
        brought: paths(|action| matches!(action, Action::Bring(_))),
        removed_here: paths(|action| *action == Action::RemoveHere),
        modes: paths(|action| matches!(action, Action::ModeHere(_) | Action::ModeThere(_))),
        conflicts: report
            .conflicts
            .iter()
            .map(|conflict| JsonConflict {
                path: text(&conflict.path),
                why: conflict.why.text(),
                beside: conflict.beside.as_deref().map(text),
            })
            .collect(),
        kept_here: report.held_here.iter().map(|path| text(path)).collect(),
        kept_there: report.held_there.iter().map(|path| text(path)).collect(),
        failed: report
            .troubles
            .iter()
            .map(|(path, why)| JsonFailure {
                path: text(path),
                why: why.clone(),
            })
            .collect(),
        changed_here: report.later_here,
        changed_there: report.later_there,
        bytes_sent: report.bytes.0,
        bytes_brought: report.bytes.1,
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Says what was done.
fn show(printer: &Printer, dock: &Dock, report: &Report, direction: Direction) -> Result<()> {
    for (path, action) in &report.done {
        printer.detail(&line(path, *action));
    }
    warn(printer, dock, report);
    if direction == Direction::Up && report.later_there > 0 {
        printer.note(&format!(
            "{} changed on the dock: sync-down brings them",
            report.later_there
        ));
    }
    if direction == Direction::Down && report.later_here > 0 {
        printer.note(&format!("{} changed here: sync-up sends them", report.later_here));
    }
    if printer.json() {
        return printer.result_json(&document(dock, report));
    }
    printer.result(&format!("{}:{}: {}", dock.moniker, report.workspace, summary(report)));
    Ok(())
}

/// Says what a sync on the way to something else did.
pub fn show_briefly(printer: &Printer, dock: &Dock, report: &Report) {
    for (path, action) in &report.done {
        printer.detail(&line(path, *action));
    }
    warn(printer, dock, report);
    if !report.done.is_empty() {
        printer.note(&format!("{}:{}: {}", dock.moniker, report.workspace, summary(report)));
    }
}

/// What was done, in few words.
fn summary(report: &Report) -> String {
    let count = |wanted: fn(&Action) -> bool| report.done.values().filter(|action| wanted(action)).count();
    let mut parts = Vec::new();
    let sent = count(|action| matches!(action, Action::Send(_)));
    if sent > 0 {
        parts.push(format!("{sent} sent ({})", size(report.bytes.0)));
    }
    let brought = count(|action| matches!(action, Action::Bring(_)));
    if brought > 0 {
        parts.push(format!("{brought} brought ({})", size(report.bytes.1)));
    }
    for (number, word) in [
        (count(|action| *action == Action::RemoveThere), "removed there"),
        (count(|action| *action == Action::RemoveHere), "removed here"),
        (
            count(|action| matches!(action, Action::ModeHere(_) | Action::ModeThere(_))),
            "modes changed",
        ),
        (report.held_here.len(), "kept here"),
        (report.held_there.len(), "kept there"),
        (report.conflicts.len(), "in conflict"),
        (report.troubles.len(), "failed"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    match parts.is_empty() {
        true => "nothing to do".to_owned(),
        false => parts.join(", "),
    }
}

/// Warns of what was not done, and of what will be in the way.
fn warn(printer: &Printer, dock: &Dock, report: &Report) {
    for conflict in &report.conflicts {
        let more = match (&conflict.why, &conflict.beside) {
            (Why::Guarded(why), _) => format!(": {why}"),
            (_, Some(beside)) => format!("; the dock's version is in {}", shown(beside)),
            (_, None) => String::new(),
        };
        printer.warning(&format!("{}: {}{more}", shown(&conflict.path), conflict.why.text()));
    }
    for (kept, by, at) in [
        (&report.held_here, "on the dock", "here"),
        (&report.held_there, "here", "on the dock"),
    ] {
        if let Some(first) = kept.first() {
            printer.warning(&format!(
                "{} files were removed {by}, {} among them: they are kept {at}",
                kept.len(),
                shown(first)
            ));
        }
    }
    for (path, why) in &report.troubles {
        printer.warning(&format!("{}: {}", shown(path), visible(why)));
    }
    for path in &report.others {
        printer.detail(&format!("{} is a pipe or a device, and is left out", shown(path)));
    }
    let (count, named) = &report.root_files;
    if *count > 0 {
        let names: Vec<String> = named.iter().map(|path| shown(path)).collect();
        let more = if *count > names.len() { ", ..." } else { "" };
        printer.warning(&format!(
            "{count} of the workspace's files belong to root, made by a container: {}{more}\n\
             hint: ssh-dock -t {} sudo chown -R --no-dereference --from=root '$(id -u)' {}",
            names.join(", "),
            shell::quote(&dock.moniker),
            shell::quote(&report.workspace)
        ));
    }
}

/// The end of a sync: conflicts and failures are one, though the rest has travelled.
fn judged(dock: &Dock, report: &Report, direction: Direction) -> Result<ExitStatus> {
    let command = match direction {
        Direction::Up => "sync-up",
        Direction::Down | Direction::Both => "sync-down",
    };
    if let Some(first) = report.conflicts.first() {
        let path = shell::quote(&shown(&first.path)).into_owned();
        let look = match first.why {
            Why::Guarded(_) => format!(
                "ssh-dock {} cat {} shows the dock's version. ",
                shell::quote(&dock.moniker),
                shell::quote(&shell::quote(&format!("{}/{}", report.workspace, shown(&first.path))))
            ),
            _ => String::new(),
        };
        return Err(Error::failed(format!(
            "{} left alone on both sides; the rest has travelled",
            match report.conflicts.len() {
                1 => "a conflict was".to_owned(),
                count => format!("{count} conflicts were"),
            }
        ))
        .hint(hint!(
            "{look}{command} --ours {path} takes this machine's version to both sides, {command} --theirs {path} the dock's";
            look = look,
            command = command,
            path = path
        )));
    }
    for (kept, by, command, back) in [
        (&report.held_here, "on the dock", "sync-down", "sync-up --ours"),
        (&report.held_there, "here", "sync-up", "sync-down --theirs"),
    ] {
        if let Some(first) = kept.first() {
            return Err(Error::failed(format!(
                "so much was removed {by} ({} files) that it is not done unasked; the rest has travelled",
                kept.len()
            ))
            .hint(hint!(
                "where that is meant: {command} --delete; {back} {} puts what was not to go back where it was",
                shown(first);
                command = command,
                back = back
            )));
        }
    }
    if let Some((path, why)) = report.troubles.first() {
        return Err(
            Error::failed(format!("{} did not travel: {}", shown(path), visible(why)))
                .hint(hint!("{} again; what has arrived stays", command)),
        );
    }
    Ok(ExitStatus::SUCCESS)
}

/// Says what happened while watching.
pub fn tell(printer: &Printer, dock: &Dock, event: Event) {
    match event {
        Event::Synced(report) => {
            for (path, action) in report.done.iter().take(NAMED) {
                printer.note(&line(path, *action));
            }
            if report.done.len() > NAMED {
                printer.note(&format!("... and {} more", report.done.len() - NAMED));
            }
            warn(printer, dock, &report);
        }
        Event::Failed(error) => {
            printer.error(&error);
            printer.note("it is tried again");
        }
        Event::Back => printer.note("the dock answers again"),
        Event::Blind(error) => {
            printer.error(&error);
            printer.note(&format!("changes here are looked for every {} s", POLL.as_secs()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_root() {
        for (path, expected) in [
            ("src/pkg/_version.py", Some("src/pkg/_version.py")),
            ("./a/../b//c", Some("b/c")),
            ("../a", None),
            ("a/../..", None),
            ("/a", None),
            (".", None),
        ] {
            let found = below_root(Path::new(path)).map(|path| String::from_utf8(path).unwrap());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
