//! Syncing a project for a dock's agent, so that containers of any client can mount it: the other side of
//! [`crate::mount_sync`].
//!
//! Two sessions share the work, as two commands would ([`crate::sync::shared`]): one keeps both sides in step, the other does the
//! rounds that the agent asks for, or has the first one do them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use build_context::Patterns;
use dock_client::sync_memory;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Stdout};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{DockedProject, dock_of, show_briefly, tell};
use crate::agent::paths::state_directory;
use crate::config::own::OwnConfiguration;
use crate::config::project::Project;
use crate::context::Context;
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result, WireError};
use crate::hint;
use crate::mount_sync::{Done, LONGEST_LINE, Missing, MissingSource, SyncCall, SyncOutcome, SyncReply, Task};
use crate::shell::quote;
use crate::sync::local::Local;
use crate::sync::manifest::Memory;
use crate::sync::news::WatchEvent;
use crate::sync::plan::Direction;
use crate::sync::request::RoundRequest;
use crate::sync::session::{Report, another_folder};
use crate::sync::{ancestors, is_at_or_below, shown};

/// How long the last round may take, once nobody asks any more.
const LAST_ROUND: Duration = Duration::from_secs(600);
/// How long to wait before a watch that could not begin is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// How many requests may wait.
const WAITING: usize = 64;
/// The mark that says that a mount without `.git` was mentioned.
const TOLD_GIT: &str = "told-mount-without-git";
/// The mark that says that it was mentioned what a mount of a single file is.
const TOLD_FILE: &str = "told-mount-of-a-file";
/// How many paths are named to whoever creates a container, of each kind.
const NAMED: usize = 3;

/// Serves an agent until stdin ends.
///
/// # Errors
/// A folder that is not the root of a project that a person has sent to the dock, no dock, a stdout that is closed; a sync
/// that fails is an answer.
pub fn serve(context: &Context) -> Result<ExitStatus> {
    let project = chosen(&context.working_dir, &dock_of(context)?.moniker, &context.env)?;
    let mut rounds = DockedProject::open_known(context, &project, true)?;
    let (begin, mut begun) = watch::channel(false);
    context.block_on(async {
        let (sender, requests) = channel(WAITING);
        let reading = read_requests(sender);
        let serving = Rounds {
            context,
            project: &project,
            docked: &mut rounds,
            begin,
        };
        let serving = serving.serve(requests);
        let watching = async {
            // The other side is dropped only when serving has ended.
            let _ = begun.wait_for(|begun| *begun).await;
            keep_in_step(context, &project).await
        };
        tokio::select! {
            ((), served) = async { tokio::join!(reading, serving) } => served,
            watched = watching => watched,
        }
    })?;
    Ok(ExitStatus::SUCCESS)
}

/// The project whose root the agent has started this in. It is never one around that folder, which nobody has sent: a
/// `docker/` that went away leaves the repository above it.
fn chosen(folder: &Path, moniker: &str, env: &Env) -> Result<Project> {
    if sync_memory::workspace(&state_directory(env), folder, moniker).is_none_or(|workspace| workspace.is_empty()) {
        return Err(Error::failed(format!(
            "{} was never sent to dock {moniker:?}, and nothing is sent there unasked",
            folder.display()
        ))
        .hint(hint!("cd {} && sync-up --dock {}", folder.display(), moniker)));
    }
    check_place(folder, moniker, env)?;
    match Project::find_or_repository(folder, env) {
        Ok(project) if project.root() == folder => Ok(project),
        Ok(_) => Err(no_project(folder, moniker)),
        // A configuration that is wrong, or another user's, is said as everywhere.
        Err(error) if Project::is_around(folder, env) => Err(error),
        Err(error) => Err(no_project(folder, moniker).because(error)),
    }
}

/// Checks that the folder at this path is the one that was last synced: a project may be deleted, and another one put there,
/// while containers mount its copy.
fn check_place(root: &Path, moniker: &str, env: &Env) -> Result<()> {
    let known = Memory::peek(root, moniker, env).header();
    let found = Local::open(root).ok().and_then(|local| local.identity().ok());
    match (known, found) {
        (Some(known), Some(found)) if known.root.is(&found) => Ok(()),
        _ => Err(another_folder(root, moniker)),
    }
}

fn no_project(folder: &Path, moniker: &str) -> Error {
    Error::failed(format!(
        "{} is no project any more: it has neither docker/ nor .git",
        folder.display()
    ))
    .hint(hint!(
        "bring that back, then: cd {} && sync-up --dock {}",
        folder.display(),
        moniker
    ))
}

/// Watches both sides for as long as it is polled; what hinders that is told once, and tried again.
///
/// # Errors
/// Another folder in the project's place.
async fn keep_in_step(context: &Context, project: &Project) -> Result<()> {
    let moniker = dock_of(context)?.moniker;
    let mut told = String::new();
    loop {
        let Err(error) = watch_once(context, project).await else {
            return Ok(());
        };
        check_place(project.root(), &moniker, &context.env)?;
        let text = error.with_causes();
        if told != text {
            context.printer.error(&error);
            told = text;
        }
        sleep(PAUSE).await;
    }
}

async fn watch_once(context: &Context, project: &Project) -> Result<()> {
    let mut watcher = DockedProject::open_known(context, project, false)?;
    let (printer, dock) = (context.printer.clone(), watcher.dock.clone());
    let (replaced, mut replacement) = watch::channel(false);
    let told = |event| {
        let is_failure = matches!(event, WatchEvent::Failed(_));
        if is_failure && check_place(project.root(), &dock.moniker, &context.env).is_err() {
            replaced.send_replace(true);
        } else {
            tell(&printer, &dock, event);
        }
    };
    tokio::select! {
        never = watcher.watch(&printer, told) => match never? {},
        // This lets go of the lock, so that a person's sync-up does what it says.
        _ = replacement.wait_for(|replaced| *replaced) => check_place(project.root(), &dock.moniker, &context.env),
    }
}

/// Reads requests to the end of stdin.
async fn read_requests(sender: Sender<SyncCall>) {
    let mut stdin = BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin)
            .take(LONGEST_LINE as u64)
            .read_until(b'\n', &mut line)
            .await;
        let request = match read {
            Ok(1..) => serde_json::from_slice(&line),
            Ok(0) | Err(_) => return,
        };
        // An agent that says anything else is of another version, and ends.
        let Ok(request) = request else { return };
        if sender.send(request).await.is_err() {
            return;
        }
    }
}

/// The rounds that the agent asks for.
struct Rounds<'a> {
    context: &'a Context,
    project: &'a Project,
    docked: &'a mut DockedProject,
    /// Has the watch begin.
    begin: watch::Sender<bool>,
}

impl Rounds<'_> {
    async fn serve(mut self, mut requests: Receiver<SyncCall>) -> Result<()> {
        let mut stdout = tokio::io::stdout();
        while let Some(first) = requests.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = requests.try_recv() {
                waiting.push(next);
            }
            let is_send = |request: &&SyncCall| matches!(request.task, Task::Send { .. });
            if waiting.iter().any(|request| is_send(&request)) {
                let synced = self.round(Direction::Up).await;
                for request in waiting.iter().filter(is_send) {
                    if let Task::Send { sources } = &request.task {
                        let outcome = match &synced {
                            Ok(report) => self.look_for(sources, report).await,
                            Err(error) => failed(error),
                        };
                        answer(&mut stdout, request.id, outcome).await?;
                    }
                }
                self.check_place()?;
            }
            for request in waiting.iter().filter(|request| request.task == Task::Watch) {
                self.begin.send_replace(true);
                answer(&mut stdout, request.id, SyncOutcome::Done(Done::default())).await?;
            }
            let mut brings = waiting.iter().filter(|request| request.task == Task::Bring).peekable();
            if brings.peek().is_some() {
                let outcome = match self.round(Direction::Down).await {
                    Ok(report) => SyncOutcome::Done(Done {
                        workspace: report.workspace,
                        ..Done::default()
                    }),
                    Err(error) => failed(&error),
                };
                for request in brings {
                    answer(&mut stdout, request.id, outcome.clone()).await?;
                }
                self.check_place()?;
            }
        }
        // What containers made while nobody asked.
        if *self.begin.borrow() {
            let printer = self.context.printer.clone();
            match timeout(LAST_ROUND, self.round(Direction::Down)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => printer.error(&error),
                Err(_) => printer.warning(&format!(
                    "the last sync of {} took too long\nhint: {}",
                    self.project.root().display(),
                    hint!("sync-down --dock {} brings what is left", self.docked.dock.moniker)
                )),
            }
        }
        Ok(())
    }

    /// Checks that the project's folder is still the one that this has begun with: else it ends, and whoever is asked
    /// next says so.
    fn check_place(&self) -> Result<()> {
        check_place(self.project.root(), &self.docked.dock.moniker, &self.context.env)
    }

    /// Syncs everything, and lets go of the lock: other commands may come between two rounds.
    async fn round(&mut self, direction: Direction) -> Result<Report> {
        self.check_place()?;
        let request = RoundRequest {
            // A watch brings what changed there; a container that is to start need not wait for that.
            from_last_look: direction == Direction::Up,
            ..RoundRequest::everything(direction)
        };
        let report = self.docked.sync(request).await;
        self.docked.finish().await;
        let report = report?;
        show_briefly(&self.context.printer, &self.docked.dock, &report);
        Ok(report)
    }

    /// Looks which of these are in the workspace after a round.
    async fn look_for(&self, sources: &[String], report: &Report) -> SyncOutcome {
        let with_git = OwnConfiguration::read(&self.context.env).is_ok_and(|own| own.sync.with_git);
        let (root, moniker) = (self.project.root(), self.docked.dock.moniker.as_str());
        let (owned, wanted) = (root.to_owned(), sources.to_vec());
        let unsent: Vec<Vec<u8>> = report.troubles.iter().map(|(path, _)| path.clone()).collect();
        let workspace = report.workspace.clone();
        let looking = tokio::task::spawn_blocking(move || missing(&owned, &wanted, &unsent, with_git));
        let missing = match looking.await {
            Ok(Ok(missing)) => missing,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return failed(&Error::failed("the project could not be looked at")),
        };
        if sources.iter().any(String::is_empty) && !with_git && self.project.root().join(".git").exists() {
            self.notice(
                TOLD_GIT,
                &format!("{} is mounted without .git, which stays here", root.display()),
                &hint!(
                    "where a container needs it: cd {} && sync-up --dock {} --with-git",
                    root.display(),
                    moniker
                ),
            );
        }
        if let Some(file) = sources
            .iter()
            .find(|source| !source.is_empty() && root.join(source).is_file())
        {
            self.notice(TOLD_FILE, &format!(
                "{file} is mounted as a single file: a container has the one that was there when it started, and not what is saved later"
            ), "mount its folder to have both at once; or restart the container");
        }
        let warnings = warnings(sources, report, root, moniker);
        SyncOutcome::Done(Done {
            workspace,
            missing,
            warnings,
        })
    }

    /// Says something once for a project and a dock, and what helps.
    fn notice(&self, mark: &str, what: &str, hint: &str) {
        let memory = Memory::peek(self.project.root(), &self.docked.dock.moniker, &self.context.env);
        if memory.is_noted(mark) || memory.note(mark).is_err() {
            return;
        }
        self.context.printer.warning(&format!("{what}\nhint: {hint}"));
    }
}

/// What in these sources is not on the dock as it is here, for whoever creates a container with them: its program would go on
/// with something else, and say nothing.
fn warnings(sources: &[String], report: &Report, root: &Path, moniker: &str) -> Vec<String> {
    let is_mounted = |path: &[u8]| {
        sources.iter().any(|source| {
            source.is_empty() || is_at_or_below(path, source.as_bytes()) || is_at_or_below(source.as_bytes(), path)
        })
    };
    let mut warnings = Vec::new();
    let mut say = |paths: Vec<String>, what: &str, help: String| {
        if paths.is_empty() {
            return;
        }
        let named = paths.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = match paths.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        warnings.push(format!(
            "{named}{more}: {what} (cd {} && {help})",
            quote(&root.display().to_string())
        ));
    };
    let conflicts = report.conflicts.iter().filter(|conflict| is_mounted(&conflict.path));
    say(
        conflicts.map(|conflict| shown(&conflict.path)).collect(),
        &format!("in conflict, dock {moniker} has its own version"),
        format!("sync-up --dock {} names the ways to settle it", quote(moniker)),
    );
    let troubles = report.troubles.iter().filter(|(path, _)| is_mounted(path));
    say(
        troubles.map(|(path, why)| format!("{} ({why})", shown(path))).collect(),
        &format!("not sent, dock {moniker} has something older or none"),
        format!(
            "sync-down --dock {} --chown, where a container made them as root",
            quote(moniker)
        ),
    );
    warnings
}

/// Which of these are not on the dock after a round; `unsent` could not travel.
fn missing(root: &Path, sources: &[String], unsent: &[Vec<u8>], with_git: bool) -> Result<Vec<MissingSource>> {
    let local = Local::open(root).map_err(|cause| Error::failed("the project can't be opened").because(cause))?;
    let mut rules = local.patterns()?;
    if !with_git {
        rules.push(b"**/.git".to_vec());
    }
    let wrong = |cause| Error::usage("the project's .dockerignore is wrong").because(cause);
    let patterns = Patterns::parse(&rules).map_err(wrong)?;
    // Of an ignored directory, exceptions may send a part.
    let mut sent = None;
    let mut is_sent = |path: &[u8]| -> Result<bool> {
        if !patterns.has_exceptions() {
            return Ok(false);
        }
        let tree = match &mut sent {
            Some(tree) => tree,
            none => {
                let listed = local.list(&rules, &BTreeSet::new(), &|| {});
                let failed = |cause| Error::failed("the project's files can't be listed").because(cause);
                none.insert(listed.map_err(failed)?.tree)
            }
        };
        Ok(tree.contains_key(path))
    };
    let mut missing = Vec::new();
    for source in sources.iter().filter(|source| !source.is_empty()) {
        let path = source.as_bytes();
        let is_unsent = |path: &[u8]| unsent.iter().any(|unsent| unsent == path);
        let why = match std::fs::symlink_metadata(root.join(source)) {
            Err(_) => Missing::Absent,
            Ok(found) if !(found.is_file() || found.is_dir() || found.is_symlink()) => Missing::Special,
            Ok(_) if !with_git && path.split(|byte| *byte == b'/').any(|part| part == b".git") => Missing::Git,
            Ok(_) if patterns.matches(path).map_err(wrong)? && !is_sent(path)? => Missing::Ignored,
            Ok(_) if is_unsent(path) || ancestors(path).any(is_unsent) => Missing::Unsent,
            Ok(_) => continue,
        };
        missing.push(MissingSource {
            path: source.clone(),
            why,
        });
    }
    Ok(missing)
}

fn failed(error: &Error) -> SyncOutcome {
    SyncOutcome::Failed(WireError::in_one_line(error))
}

async fn answer(stdout: &mut Stdout, id: u64, outcome: SyncOutcome) -> Result<()> {
    let gone = |cause| Error::failed("the dock's agent has gone").because(cause);
    let mut line = serde_json::to_vec(&SyncReply { id, outcome }).map_err(|cause| gone(cause.into()))?;
    line.push(b'\n');
    stdout.write_all(&line).await.map_err(gone)?;
    stdout.flush().await.map_err(gone)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use crate::sync::manifest::{Header, Manifest};

    use super::*;

    /// A home with a repository, in which a project was sent to the dock `far`.
    struct SentProject {
        _home: tempfile::TempDir,
        root: PathBuf,
        env: Env,
    }

    impl SentProject {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let base = home.path().canonicalize().unwrap();
            let root = base.join("all/app");
            fs::create_dir_all(base.join("all/.git")).unwrap();
            fs::create_dir_all(root.join("docker/dev")).unwrap();
            fs::write(root.join("docker/dev/Dockerfile"), "FROM scratch\n").unwrap();
            let env = Env::from_pairs([("HOME", base.to_str().unwrap())]);
            let memory = Memory::open(&root, "far", &env).unwrap();
            let mut header = Header::new("id", "/data/w/app");
            header.root = Local::open(&root).unwrap().identity().unwrap();
            let manifest = Manifest {
                header,
                ..Manifest::default()
            };
            memory.remember(&manifest).unwrap();
            Self { _home: home, root, env }
        }

        fn chosen(&self) -> Result<PathBuf> {
            chosen(&self.root, "far", &self.env).map(|project| project.root().to_owned())
        }
    }

    #[test]
    fn only_the_folder_that_a_person_sent_is_sent_and_not_a_repository_around_it() {
        let sent = SentProject::new();
        assert_eq!(sent.chosen().unwrap(), sent.root);
        fs::remove_dir_all(sent.root.join("docker")).unwrap();
        let error = sent.chosen().unwrap_err();
        assert!(error.to_string().contains("is no project any more"), "{error}");
        assert!(
            error.hint_text().unwrap().ends_with("/all/app && sync-up --dock far"),
            "{error:?}"
        );
        // The repository itself was never sent.
        let around = sent.root.parent().unwrap();
        let error = chosen(around, "far", &sent.env).unwrap_err();
        assert!(error.to_string().contains("was never sent"), "{error}");
        assert!(chosen(&sent.root, "near", &sent.env).is_err());
    }

    #[test]
    fn another_folder_at_the_path_of_a_project_is_not_synced_unasked() {
        let sent = SentProject::new();
        let aside = sent.root.with_file_name("aside");
        fs::rename(&sent.root, &aside).unwrap();
        fs::create_dir_all(sent.root.join("docker/dev")).unwrap();
        fs::write(sent.root.join("docker/dev/Dockerfile"), "FROM scratch\n").unwrap();
        let error = sent.chosen().unwrap_err();
        assert!(
            error.to_string().contains("is not the folder that was last synced"),
            "{error}"
        );
        assert!(
            error.hint_text().unwrap().ends_with("/all/app && sync-up --dock far"),
            "{error:?}"
        );
        fs::remove_dir_all(&sent.root).unwrap();
        assert!(sent.chosen().is_err());
        fs::rename(&aside, &sent.root).unwrap();
        assert_eq!(sent.chosen().unwrap(), sent.root);
    }

    #[test]
    fn who_mounts_what_is_not_there_as_it_is_here_is_told() {
        use crate::sync::plan::Why;
        use crate::sync::session::Conflict;
        let conflict = |path: &[u8]| Conflict {
            path: path.to_vec(),
            why: Why::BothChanged,
            beside: None,
        };
        let report = Report {
            conflicts: vec![conflict(b"src/a.py"), conflict(b"docs/a")],
            troubles: (0..5)
                .map(|number| (format!("src/{number}").into_bytes(), "denied".to_owned()))
                .collect(),
            ..Report::default()
        };
        let told =
            |source: &str| warnings(&[source.to_owned()], &report, Path::new("/home/ann/my app"), "far").join("\n");
        assert_eq!(
            told("src"),
            "src/a.py: in conflict, dock far has its own version (cd '/home/ann/my app' && sync-up --dock far names the ways to settle \
             it)\nsrc/0 (denied), src/1 (denied), src/2 (denied) and 2 more: not sent, dock far has something older or none (cd \
             '/home/ann/my app' && sync-down --dock far --chown, where a container made them as root)"
        );
        for (source, conflicts) in [
            ("", 2),
            ("docs", 1),
            ("docs/a", 1),
            ("src/a.py", 1),
            ("docs/a/b", 1),
            ("doc", 0),
            ("data", 0),
        ] {
            let told = told(source);
            let named = ["src/a.py", "docs/a"]
                .iter()
                .filter(|path| told.contains(*path))
                .count();
            assert_eq!(named, conflicts, "{source}: {told}");
        }
    }

    #[test]
    fn what_is_absent_ignored_or_special_is_not_on_the_dock_and_what_an_exception_sends_is() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        };
        for path in ["src/a.py", "data/big.csv", "data/keep.csv", "logs/1.log", ".git/HEAD"] {
            make(path);
        }
        let _socket = UnixListener::bind(root.path().join("s")).unwrap();
        let look = |sources: &[&str], with_git| {
            let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
            let missing = missing(root.path(), &sources, &[b"src/a.py".to_vec()], with_git).unwrap();
            let pairs = missing.into_iter().map(|missing| (missing.path, missing.why));
            pairs.collect::<Vec<_>>()
        };
        let gone = |path: &str, why| vec![(path.to_owned(), why)];
        assert_eq!(look(&["", "src", "data", "logs"], false), []);
        assert_eq!(look(&["nothing"], false), gone("nothing", Missing::Absent));
        assert_eq!(look(&["s"], false), gone("s", Missing::Special));
        assert_eq!(look(&[".git"], false), gone(".git", Missing::Git));
        assert_eq!(look(&[".git"], true), []);
        assert_eq!(look(&["src/a.py"], false), gone("src/a.py", Missing::Unsent));
        fs::write(root.path().join(".dockerignore"), "logs\n").unwrap();
        assert_eq!(look(&["logs/1.log"], false), gone("logs/1.log", Missing::Ignored));
        fs::write(root.path().join(".dockerignore"), "logs\ndata\n!data/keep.csv\n").unwrap();
        assert_eq!(look(&["data", "data/keep.csv"], false), []);
        assert_eq!(look(&["data/big.csv"], false), gone("data/big.csv", Missing::Ignored));
        assert_eq!(look(&["logs"], false), gone("logs", Missing::Ignored));
    }
}
