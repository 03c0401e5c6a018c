//! Keeping a project and its copy on a dock in step: `sync-up` and `sync-down`.

pub mod for_agent;
pub mod restore;
mod root_files;

use std::convert::Infallible;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::agent::paths::state_directory;
use crate::agent::{Agent, CallOptions};
use crate::config::own::{OwnConfiguration, SyncConfiguration};
use crate::config::project::Project;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::Endpoint;
use crate::docks::{self, Dock, Docks};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::machine_id::machine_id;
use crate::ops::genversion;
use crate::output::{self, Printer, size, visible};
use crate::patience::{CutNews, is_worth_a_try, patiently};
use crate::shell;
use crate::sync::local::Local;
use crate::sync::manifest::Memory;
use crate::sync::news::Before;
use crate::sync::news::WatchEvent;
use crate::sync::plan::{Action, Direction, Side, Why};
use crate::sync::remote::DockShell;
use crate::sync::request::RoundRequest;
use crate::sync::rhythm::POLL;
use crate::sync::rsync::Rsync;
use crate::sync::send::Generated;
use crate::sync::session::{Conflict, Notice, Report, Session, Target};
use crate::sync::shared::SharedSession;
use crate::sync::shown;
use crate::sync::trash::Trash;
use crate::version::{self, Versioneer, file};

/// How many paths are named of a round of watching.
const NAMED: usize = 8;
/// How many of root's files are named.
const ROOT_NAMED: usize = 3;

/// What sync-up and sync-down are asked for.
#[derive(Clone, Debug)]
pub struct SyncArgs {
    pub direction: Direction,
    /// Only show what would be done.
    pub list: bool,
    /// Go on, both ways, until interrupted.
    pub watch: bool,
    /// Bring back what earlier syncs took, on the side that this one would change.
    pub restore: bool,
    /// Whose version wins where both sides changed.
    pub settle: Option<Side>,
    /// Remove however much the other side has removed.
    pub delete: bool,
    /// git's own files travel, too.
    pub with_git: bool,
    /// First give the user what belongs to root in the workspace.
    pub chown: bool,
    /// Only these paths; empty for all.
    pub paths: Vec<PathBuf>,
}

/// The result in JSON.
#[derive(Serialize)]
struct SyncDocument<'a> {
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

/// A project and the dock that a call is for, as this command and others sync them.
pub struct DockedProject {
    pub dock: Dock,
    shared: SharedSession<DockShell>,
    shell: DockShell,
    printer: Printer,
    generated: Option<Generated>,
    /// Its path, where it could not be made.
    unmade: Option<Vec<u8>>,
    /// Whether nothing is shown of the sessions that are opened from now on.
    is_silent: Arc<AtomicBool>,
}

impl DockedProject {
    /// Opens a project and the dock that the call is for. With `writes`, the version file is made as a build would have it; with
    /// `with_git`, git's own files travel, whatever the user's configuration says.
    ///
    /// # Errors
    /// No dock, one without ssh.
    pub fn open(context: &Context, project: &Project, writes: bool, with_git: bool) -> Result<Self> {
        let mut opening = SessionSetup::new(context, project)?;
        opening.own.with_git |= with_git;
        Ok(Self::of(opening, context, project, writes))
    }

    /// [`DockedProject::open`] for syncs that no person has asked for: nothing is synced but the folder and the workspace that were
    /// synced before.
    ///
    /// # Errors
    /// As [`DockedProject::open`].
    fn open_known(context: &Context, project: &Project, writes: bool) -> Result<Self> {
        let mut opening = SessionSetup::new(context, project)?;
        opening.only_known = true;
        Ok(Self::of(opening, context, project, writes))
    }

    fn of(opening: SessionSetup, context: &Context, project: &Project, writes: bool) -> Self {
        let (dock, root) = (opening.dock.clone(), opening.local.root().to_owned());
        let (moniker, notice) = (dock.moniker.clone(), Arc::clone(&opening.notice));
        let (shell, printer) = (opening.shell(), opening.printer.clone());
        let trash = state_directory(&context.env);
        // What a build would have in its context; where it can't be made, that is said below.
        let written = match writes {
            true => genversion::before_build(project, &context.printer),
            false => Ok(()),
        };
        let version = written.and_then(|()| generated(project.root()));
        let (generated, unmade) = match version {
            Ok(generated) => (generated, None),
            Err(error) => {
                let unmade = unmade(project.root());
                let left = unmade
                    .as_ref()
                    .map(|path| format!(", and {} stays as it is there", shown(path)));
                context.printer.warning(&format!(
                    "{}: the dock gets no version{}",
                    error.with_causes(),
                    left.unwrap_or_default()
                ));
                (None, unmade)
            }
        };
        let folder = project.root().to_owned();
        let is_silent = Arc::<AtomicBool>::default();
        let silent = Arc::clone(&is_silent);
        let open = move |memory| {
            opening.local.clean();
            let mut session = opening.session(memory);
            if silent.load(Ordering::Acquire) {
                session.notice = Arc::new(|_| {});
                session.printer = None;
            }
            session.trash = Some(Trash::open(&trash, &folder, Some(&opening.dock.moniker)));
            // Whoever is opened later, as one that takes another's place, has the version of then.
            set_generated(&mut session, &folder);
            Ok(session)
        };
        Self {
            dock,
            shared: SharedSession::new(root, &moniker, &context.env, notice, Box::new(open)),
            shell,
            printer,
            generated,
            unmade,
            is_silent,
        }
    }

    /// Has nothing shown of what is synced from the next session on, or shows it again: a container may have the terminal.
    pub fn silence(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Release);
    }

    /// Syncs, or has whoever syncs the same just now do it. A link that is cut is waited for: what has arrived stays, and every
    /// file is whole.
    ///
    /// # Errors
    /// A dock that can't be reached; what concerns single paths is in the report.
    pub async fn sync(&mut self, request: RoundRequest) -> Result<Report> {
        let request = RoundRequest {
            generated: self.generated.clone(),
            unmade: self.unmade.clone(),
            ..request
        };
        let DockShell {
            agent,
            options,
            reached,
        } = &self.shell;
        let _heartbeat = Heartbeat::of(agent, &self.printer, Arc::clone(&self.is_silent));
        let first = self.shared.sync(&request).await;
        if let Err(error) = &first
            && is_worth_a_try(error)
            && !reached.load(Ordering::Acquire)
            && agent.connect(options).await.is_err()
        {
            // A dock that can't be reached to begin with is not waited for.
            return first;
        }
        let mut first = Some(first);
        patiently(
            async || match first.take() {
                Some(first) => first,
                None => self.shared.sync(&request).await,
            },
            async || agent.connect(options).await,
            |news| match news {
                // A file that was under way begins at its first byte.
                CutNews::TryingAgain(_) => self
                    .printer
                    .warning(&format!("{news}: files that had arrived whole are kept")),
                CutNews::Waiting(_) => self.printer.warning(&news.to_string()),
            },
        )
        .await
    }

    /// Keeps both in step until this is dropped, now or when the command ends that does already; events go to `told`.
    ///
    /// # Errors
    /// What hinders the beginning; later failures are told.
    pub async fn watch(&mut self, printer: &Printer, told: impl FnMut(WatchEvent)) -> Result<Infallible> {
        let _heartbeat = Heartbeat::of(&self.shell.agent, printer, Arc::clone(&self.is_silent));
        let printer = printer.clone();
        let take_over = move |process: Option<u32>| match process {
            Some(pid) => printer.note(&format!(
                "{} already keeps the project in step, and reports what it does; this one takes over when that ends",
                if pid == 0 {
                    "another command".to_owned()
                } else {
                    format!("process {pid}")
                }
            )),
            None => printer.note("this command keeps the project in step now"),
        };
        self.shared.watch(told, take_over).await
    }

    /// Does what other commands have asked for by now; from then on, they do it themselves.
    pub async fn finish(&mut self) {
        self.shared.finish().await;
    }

    /// Lets go in the middle of whatever goes on.
    pub fn let_go(&mut self) {
        self.shared.let_go();
    }

    /// A session that no other command disturbs.
    ///
    /// # Errors
    /// One that does not step aside.
    pub async fn alone(&mut self) -> Result<Session<DockShell>> {
        self.shared.alone().await
    }
}

/// What a session is made of.
struct SessionSetup {
    dock: Dock,
    agent: Agent,
    local: Local,
    target: Target,
    rsync: Option<Rsync>,
    notice: Notice,
    printer: Printer,
    /// Whether the dock was reached by a session of this.
    reached: Arc<AtomicBool>,
    own: SyncConfiguration,
    /// As [`Session::only_known`].
    only_known: bool,
}

impl SessionSetup {
    fn new(context: &Context, project: &Project) -> Result<Self> {
        let dock = dock_of(context)?;
        let agent = dock_engine::agent(&dock, &context.env)?.ok_or_else(|| without_ssh(&dock))?;
        let local =
            Local::open(project.root()).map_err(|cause| Error::failed("the project can't be opened").because(cause))?;
        let target = Target {
            moniker: dock.moniker.clone(),
            base: dock.workspace.clone(),
            user: project.user().to_owned(),
            project: project.name(),
            machine: machine_id(&context.env)?,
        };
        let printer = context.printer.clone();
        Ok(Self {
            own: OwnConfiguration::read(&context.env)?.sync,
            only_known: false,
            reached: Arc::default(),
            rsync: Rsync::by_ssh_dock(&dock.moniker, &context.env),
            dock,
            agent,
            local,
            target,
            notice: {
                let printer = printer.clone();
                Arc::new(move |line| printer.note(line))
            },
            printer,
        })
    }

    fn shell(&self) -> DockShell {
        DockShell {
            agent: self.agent.clone(),
            options: CallOptions::of_terminal(),
            reached: Arc::clone(&self.reached),
        }
    }

    fn session(&self, memory: Memory) -> Session<DockShell> {
        let mut session = Session::new(self.shell(), self.local.clone(), memory, self.target.clone());
        session.rsync.clone_from(&self.rsync);
        session.brake = self.own.remove_unasked.into();
        session.with_git = self.own.with_git;
        session.only_known = self.only_known;
        session.notice = Arc::clone(&self.notice);
        session.printer = Some(self.printer.clone());
        session
    }
}

/// A session that only reads: nothing changes on either side, and a sync that is under way goes on.
fn looking(context: &Context, project: &Project) -> Result<(Agent, Session<DockShell>)> {
    let opening = SessionSetup::new(context, project)?;
    let memory = Memory::peek(opening.local.root(), &opening.dock.moniker, &context.env);
    let mut session = opening.session(memory);
    set_generated(&mut session, project.root());
    Ok((opening.agent, session))
}

/// That there is no version stops nobody's sync: the file is left as it is on both sides.
fn set_generated(session: &mut Session<DockShell>, root: &Path) {
    match generated(root) {
        Ok(generated) => session.generated = generated,
        Err(_) => session.unmade = unmade(root),
    }
}

/// The version file's place where no version can be made, as far as that can be told.
fn unmade(root: &Path) -> Option<Vec<u8>> {
    version::source_mentioned(root).and_then(|path| below_root(Path::new(&path)))
}

/// The version file's place in the project, and what the dock gets there.
fn generated(root: &Path) -> Result<Option<Generated>> {
    let Some(versioneer) = Versioneer::find(root)? else {
        return Ok(None);
    };
    let versions = versioneer.versions()?;
    let path = below_root(Path::new(versioneer.source())).map(|path| Generated {
        path,
        text: file::text(&versions).into_bytes(),
    });
    Ok(path)
}

/// A path of the project, without `.` and `..`; `None` for a path that leads out, and for the root itself.
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
        None => Err(
            Error::usage("there is no dock to sync with: this shell is not docked").hint(hint!(
                "name one with --dock {}, or dock to it with: source dock {}",
                docks.example(),
                docks.example()
            )),
        ),
    }
}

/// The dock whose agent's socket the environment leads to.
fn dock_of_engine(env: &Env) -> Result<Option<Dock>> {
    match Endpoint::choose(env).map(|choice| choice.endpoint) {
        Ok(Endpoint::Unix(socket)) => Ok(dock_engine::agent_of_socket(&socket, env)?.map(|agent| agent.dock().clone())),
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
    let project = Project::find_or_repository(&context.working_dir, &context.env)?;
    let request = RoundRequest {
        settle: args.settle,
        only: wanted(context, &project, &args.paths)?,
        delete: args.delete,
        with_git: args.with_git,
        ..RoundRequest::everything(args.direction)
    };
    if args.list || context.global.dry_run {
        let (agent, mut session) = looking(context, &project)?;
        session.with_git |= args.with_git;
        let brake = session.brake;
        let report = context.block_on(async {
            let _heartbeat = Heartbeat::of(&agent, &context.printer, Arc::default());
            session.sync(&request.sync_request(brake), true).await
        })?;
        return listed(context, agent.dock(), &report);
    }
    let mut docked = DockedProject::open(context, &project, args.direction == Direction::Up, args.with_git)?;
    let looking = args.chown.then(|| looking(context, &project)).transpose()?;
    context.block_on(async {
        let dock = docked.dock.clone();
        if let Some((agent, mut session)) = looking {
            let heartbeat = Heartbeat::of(&agent, &context.printer, Arc::default());
            let report = session
                .sync(
                    &RoundRequest::everything(args.direction).sync_request(session.brake),
                    true,
                )
                .await?;
            drop(heartbeat);
            root_files::give(context, &project, &dock, &report).await?;
        }
        let report = docked.sync(request).await?;
        show(&context.printer, &dock, &report, args.direction, args.watch)?;
        root_files::offer(context, &project, &dock, &report).await;
        if !args.watch {
            docked.finish().await;
            return judged(&dock, &report, args.direction, context.dock.as_deref());
        }
        let printer = &context.printer;
        printer.note(&format!(
            "watching {}; the dock is checked every {} s. Ctrl-C ends it",
            project.root().display(),
            POLL.as_secs()
        ));
        match docked.watch(printer, |event| tell(printer, &dock, event)).await? {}
    })
}

/// The paths that were named, seen from the root.
fn wanted(context: &Context, project: &Project, paths: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut only = Vec::new();
    for path in paths {
        let full = context.working_dir.join(path);
        let inside = full.strip_prefix(project.root()).ok();
        match inside.map(below_root) {
            Some(Some(path)) => only.push(path),
            // The root, however it is spelled.
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

fn document<'a>(dock: &'a Dock, report: &'a Report) -> SyncDocument<'a> {
    let paths = |wanted: fn(&Action) -> bool| {
        let paths = report.done.iter().filter(|(_, action)| wanted(action));
        paths.map(|(path, _)| text(path)).collect()
    };
    SyncDocument {
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
fn show(printer: &Printer, dock: &Dock, report: &Report, direction: Direction, watch: bool) -> Result<()> {
    for (path, action) in &report.done {
        printer.detail(&line(path, *action));
    }
    warn(printer, dock, report, Before::default());
    // A watch brings and sends both.
    if direction == Direction::Up && report.later_there > 0 && !watch {
        printer.note(&format!(
            "{} changed on the dock: sync-down brings them",
            report.later_there
        ));
    }
    if direction == Direction::Down && report.later_here > 0 && !watch {
        printer.note(&format!("{} changed here: sync-up sends them", report.later_here));
    }
    if printer.json() {
        return printer.result_json(&document(dock, report));
    }
    printer.result(&format!("{}:{}: {}", dock.moniker, report.workspace, summary(report)));
    Ok(())
}

/// Reports a sync that was one step of another command.
pub fn show_briefly(printer: &Printer, dock: &Dock, report: &Report) {
    for (path, action) in &report.done {
        printer.detail(&line(path, *action));
    }
    warn(printer, dock, report, Before::default());
    if let Some(hint) = in_the_way(dock, report, "sync-down", "") {
        printer.note(&format!("hint: {hint}"));
    }
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

/// Warns of what was not done, and of what will be in the way; of some of it there was more before.
fn warn(printer: &Printer, dock: &Dock, report: &Report, before: Before) {
    for conflict in &report.conflicts {
        let more = match (&conflict.why, &conflict.beside) {
            (Why::Guarded(why), _) => format!(": {why}"),
            (_, Some(beside)) => format!("; the dock's version is in {}", shown(beside)),
            (_, None) => String::new(),
        };
        printer.warning(&format!("{}: {}{more}", shown(&conflict.path), conflict.why.text()));
    }
    if before.conflicts > 0 && !report.conflicts.is_empty() {
        printer.note(&format!(
            "{} in conflict now",
            before.conflicts + report.conflicts.len()
        ));
    }
    for (kept, before, by, at) in [
        (&report.held_here, before.held_here, "on the dock", "here"),
        (&report.held_there, before.held_there, "here", "on the dock"),
    ] {
        if let Some(first) = kept.first() {
            printer.warning(&format!(
                "{} files were removed {by}, {} among them: they are kept {at}",
                counted(kept.len(), before),
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
    if !report.root_files.is_empty() {
        let named = report.root_files.iter().take(ROOT_NAMED);
        let names: Vec<String> = named.map(|path| shown(path)).collect();
        let more = if report.root_files.len() > names.len() {
            ", ..."
        } else {
            ""
        };
        printer.warning(&format!(
            "{} of the workspace's files belong to root, made by a container: {}{more}\n\
             hint: {}",
            counted(report.root_files.len(), before.root_files),
            names.join(", "),
            hint!(
                "sync-down --dock {} --chown gives them to you, without sudo",
                dock.moniker
            )
        ));
    }
}

/// The number of new ones and, if there were some before, the number in all.
fn counted(new: usize, before: usize) -> String {
    match before {
        0 => new.to_string(),
        before => format!("{new} more ({} in all)", new + before),
    }
}

/// The end of a sync: conflicts and failures are one, though the rest has travelled.
fn judged(dock: &Dock, report: &Report, direction: Direction, named: Option<&str>) -> Result<ExitStatus> {
    // What was named for this call has to be named for the next one.
    let to = named
        .map(|dock| format!(" --dock {}", shell::quote(dock)))
        .unwrap_or_default();
    let command = match direction {
        Direction::Up => "sync-up",
        Direction::Down | Direction::Both => "sync-down",
    };
    let hint = in_the_way(dock, report, command, &to);
    let what = match (report.conflicts.len(), report.held_here.len(), report.held_there.len()) {
        (1, ..) => Some("a conflict was left alone on both sides".to_owned()),
        (2.., ..) => Some(format!(
            "{} conflicts were left alone on both sides",
            report.conflicts.len()
        )),
        (_, kept @ 1.., _) => Some(so_much("on the dock", kept)),
        (_, _, kept @ 1..) => Some(so_much("here", kept)),
        (0, 0, 0) => None,
    };
    if let (Some(what), Some(hint)) = (what, hint) {
        return Err(Error::failed(format!("{what}; the rest was synced")).hint(hint));
    }
    if let Some((path, why)) = report.troubles.first() {
        return Err(
            Error::failed(format!("{} was not synced: {}", shown(path), visible(why)))
                .hint(hint!("{command}{to} again; what has arrived stays"; command = command, to = to)),
        );
    }
    Ok(ExitStatus::SUCCESS)
}

fn so_much(by: &str, files: usize) -> String {
    format!(
        "so much was removed {by} ({}) that the other side keeps it",
        output::counted(files, "file")
    )
}

/// What settles the first of what is left alone; `command` is the one that syncs, and `to` the option that names its dock.
fn in_the_way(dock: &Dock, report: &Report, command: &str, to: &str) -> Option<String> {
    if let Some(first) = report.conflicts.first() {
        return Some(settling(dock, report, first, &format!("{command}{to}")));
    }
    let held = [
        (&report.held_here, "sync-down", "sync-up --ours"),
        (&report.held_there, "sync-up", "sync-down --theirs"),
    ];
    held.into_iter().find_map(|(kept, command, back)| {
        let first = kept.first()?;
        Some(hint!(
            "if that is intended: {command}{to} --delete; {back}{to} {} restores what should have stayed",
            shown(first);
            command = command,
            to = to,
            back = back
        ))
    })
}

fn settling(dock: &Dock, report: &Report, conflict: &Conflict, command: &str) -> String {
    let path = shell::quote(&shown(&conflict.path)).into_owned();
    let look = match conflict.why {
        Why::Guarded(_) => format!(
            "ssh-dock {} cat {} shows the dock's version. ",
            shell::quote(&dock.moniker),
            shell::quote(&shell::quote(&format!(
                "{}/{}",
                report.workspace,
                shown(&conflict.path)
            )))
        ),
        _ => String::new(),
    };
    hint!(
        "{look}{command} --ours {path} takes this machine's version to both sides, {command} --theirs {path} the dock's";
        look = look,
        command = command,
        path = path
    )
}

/// Says what happened while watching.
pub fn tell(printer: &Printer, dock: &Dock, event: WatchEvent) {
    match event {
        WatchEvent::Synced(report, before) => {
            for (path, action) in report.done.iter().take(NAMED) {
                printer.note(&line(path, *action));
            }
            if report.done.len() > NAMED {
                printer.note(&format!("... and {} more", report.done.len() - NAMED));
            }
            warn(printer, dock, &report, before);
            if let Some(hint) = in_the_way(dock, &report, "sync-down", "") {
                printer.note(&format!("hint: {hint}"));
            }
        }
        WatchEvent::Failed(error) => {
            printer.error(&error);
            printer.note("trying again");
        }
        WatchEvent::Back => printer.note("the dock answers again"),
        WatchEvent::Blind(error) => {
            printer.error(&error);
            printer.note(&format!("changes here are checked for every {} s", POLL.as_secs()));
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
