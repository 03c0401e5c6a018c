//! `sync-down --restore` and `sync-up --restore`: bringing back what syncs removed or overwrote, here and on the dock.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::{DockedProject, SyncArgs, looking, text, wanted};
use crate::agent::paths::state_directory;
use crate::agent::wire::LinkStatus;
use crate::config::project::Project;
use crate::context::Context;
use crate::error::{Error, ExitStatus, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::output::table::{Align, Table};
use crate::output::{Printer, size, visible};
use crate::sync::local::Local;
use crate::sync::plan::Direction;
use crate::sync::shared::Lock;
use crate::sync::trash::{self, KEPT_BYTES, KEPT_SECONDS, Restored, Trash, Version};
use crate::sync::{ItemKind, shown};

/// What is kept, in JSON.
#[derive(Serialize)]
struct KeptDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'a str>,
    kept: Vec<JsonVersion<'a>>,
}

#[derive(Serialize)]
struct JsonVersion<'a> {
    path: String,
    /// `removed` or `overwritten`.
    why: &'static str,
    /// When, in UTC.
    time: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dock: Option<&'a str>,
    /// Where it lies.
    file: String,
}

/// What was restored, in JSON.
#[derive(Serialize)]
struct RestoredDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    dock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'a str>,
    restored: Vec<String>,
    unchanged: Vec<String>,
    failed: Vec<super::JsonFailure>,
    bytes: u64,
}

/// Where something is kept, and the command that brings it back.
struct Side<'a> {
    dock: Option<&'a str>,
    workspace: Option<&'a str>,
    /// The project or the workspace, for people.
    place: String,
    /// The trash itself.
    trash: &'a Path,
    command: &'static str,
}

/// Restores, or lists what could be.
///
/// # Errors
/// Nothing that is kept of what was asked for; a dock that can't be reached; what could not be put back, after the rest.
pub fn restore(context: &Context, args: &SyncArgs) -> Result<ExitStatus> {
    let project = Project::find_or_repository(&context.working_dir, &context.env)?;
    let only = wanted(context, &project, &args.paths)?;
    match args.direction {
        Direction::Up => restore_there(context, args, &project, &only),
        Direction::Down | Direction::Both => restore_here(context, args, &project, &only),
    }
}

/// The paths of which a project's trash here keeps something, seen from its root.
///
/// # Errors
/// A project or a trash that can't be read.
pub fn kept_here(context: &Context, project: &Project) -> Result<BTreeSet<Vec<u8>>> {
    let local =
        Local::open(project.root()).map_err(|cause| Error::failed("the project can't be opened").because(cause))?;
    let versions = Trash::open(&state_directory(&context.env), local.root(), None).list()?;
    Ok(versions.into_iter().map(|version| version.path).collect())
}

/// The same of the dock's trash, where the link to it stands: nobody is asked for a passphrase.
///
/// # Errors
/// No dock, or one that does not say.
pub async fn kept_there(context: &Context, project: &Project) -> Result<BTreeSet<Vec<u8>>> {
    let (agent, mut session) = looking(context, project)?;
    if !agent
        .status(false)
        .await?
        .is_some_and(|status| matches!(status.link, LinkStatus::Up { .. }))
    {
        return Ok(BTreeSet::new());
    }
    let versions = session.kept_there().await?;
    Ok(versions.into_iter().map(|version| version.path).collect())
}

/// No dock is asked: what is kept here is here.
fn restore_here(context: &Context, args: &SyncArgs, project: &Project, only: &[Vec<u8>]) -> Result<ExitStatus> {
    let local =
        Local::open(project.root()).map_err(|cause| Error::failed("the project can't be opened").because(cause))?;
    let mut kept = Trash::open(&state_directory(&context.env), local.root(), None);
    let directory = kept.directory().to_owned();
    let mut versions = kept.list()?;
    if let Some(dock) = &context.dock {
        versions.retain(|version| version.dock.as_ref() == Some(dock));
    }
    let side = Side {
        dock: context.dock.as_deref(),
        workspace: None,
        place: local.root().display().to_string(),
        trash: &directory,
        command: "sync-down",
    };
    let Some(chosen) = side.choose(context, args, &versions, only)? else {
        return Ok(ExitStatus::SUCCESS);
    };
    // Nothing may be synced meanwhile, and what is remembered of the syncs is about to change.
    let mut memories = Vec::new();
    for dock in trash::docks(&versions) {
        let lock = Lock::new(local.root(), dock, &context.env);
        memories.push(context.block_on(lock.take(&|line| context.printer.note(line)))?);
    }
    let restored = kept.restore(&local, &chosen)?;
    for memory in memories {
        let mut manifest = memory.manifest();
        if trash::forget(&mut manifest.records, &restored.contents) {
            memory.remember(&manifest)?;
        }
    }
    side.show(&context.printer, &restored)
}

fn restore_there(context: &Context, args: &SyncArgs, project: &Project, only: &[Vec<u8>]) -> Result<ExitStatus> {
    let (agent, mut session) = if args.list || context.global.dry_run {
        looking(context, project)?
    } else {
        let mut docked = DockedProject::open(context, project, false, false)?;
        let session = context.block_on(docked.alone())?;
        (docked.shell.agent, session)
    };
    let dock = agent.dock();
    let versions = context.block_on(async {
        let _heartbeat = Heartbeat::of(&agent, &context.printer, Arc::default());
        session.kept_there().await
    })?;
    let workspace = session.workspace().path.clone();
    let trash = Path::new(&workspace).join(".dockerutils-sync/trash");
    let side = Side {
        dock: Some(&dock.moniker),
        workspace: Some(&workspace),
        place: format!("{}:{workspace}", dock.moniker),
        trash: &trash,
        command: "sync-up",
    };
    let Some(chosen) = side.choose(context, args, &versions, only)? else {
        return Ok(ExitStatus::SUCCESS);
    };
    let restored = context.block_on(async {
        let _heartbeat = Heartbeat::of(&agent, &context.printer, Arc::default());
        session.restore_there(&chosen).await
    })?;
    side.show(&context.printer, &restored)
}

impl Side<'_> {
    /// What is to be restored; `None` where it was only to be shown, which is done then.
    fn choose(
        &self,
        context: &Context,
        args: &SyncArgs,
        versions: &[Version],
        only: &[Vec<u8>],
    ) -> Result<Option<Vec<Version>>> {
        let printer = &context.printer;
        if args.list {
            let meant: Vec<&Version> = versions
                .iter()
                .filter(|version| trash::is_meant(version, only))
                .collect();
            self.list(printer, &meant)?;
            return Ok(None);
        }
        let chosen = trash::chosen(versions, only);
        if chosen.is_empty() {
            return Err(self.nothing(only, versions.is_empty()));
        }
        if context.global.dry_run {
            self.plan(printer, &chosen)?;
            return Ok(None);
        }
        Ok(Some(chosen))
    }

    fn nothing(&self, only: &[Vec<u8>], is_empty: bool) -> Error {
        let of = match only {
            [] => String::new(),
            paths => {
                let paths: Vec<String> = paths.iter().map(|path| shown(path)).collect();
                format!(" of {}", paths.join(", "))
            }
        };
        let error = Error::failed(format!("nothing is kept{of} for {}", visible(&self.place)));
        if is_empty {
            return error.hint(hint!(
                "what a sync removes or overwrites is kept for {days} days, {most} at most";
                days = KEPT_SECONDS / (24 * 3600),
                most = size(KEPT_BYTES)
            ));
        }
        match self.dock {
            Some(dock) => error.hint(hint!(
                "{} --restore --list --dock {} shows what is kept",
                self.command,
                dock
            )),
            None => error.hint(hint!("{} --restore --list shows what is kept", self.command)),
        }
    }

    fn list(&self, printer: &Printer, versions: &[&Version]) -> Result<()> {
        if printer.json() {
            return printer.result_json(&KeptDocument {
                dock: self.dock,
                workspace: self.workspace,
                kept: versions.iter().map(|version| self.json(version)).collect(),
            });
        }
        if versions.is_empty() {
            printer.note(&format!("nothing is kept for {}", visible(&self.place)));
            return Ok(());
        }
        let mut table = Table::new([
            ("WHEN", Align::Left),
            ("WHY", Align::Left),
            ("SIZE", Align::Right),
            ("PATH", Align::Left),
        ]);
        for version in versions {
            let (size, slash) = match version.item.kind {
                ItemKind::Directory => (String::new(), "/"),
                _ => (size(version.item.stamp.size), ""),
            };
            table.row([
                local_time(version.when()),
                version.reason.text().to_owned(),
                size,
                format!("{}{slash}", shown(&version.path)),
            ]);
        }
        for line in table.lines() {
            printer.result(&line);
        }
        Ok(())
    }

    /// Says what would be brought back.
    fn plan(&self, printer: &Printer, versions: &[Version]) -> Result<()> {
        if printer.json() {
            return printer.result_json(&RestoredDocument {
                dock: self.dock,
                workspace: self.workspace,
                restored: versions.iter().map(|version| text(&version.path)).collect(),
                unchanged: Vec::new(),
                failed: Vec::new(),
                bytes: bytes(versions),
            });
        }
        for version in versions {
            printer.result(&line(version));
        }
        Ok(())
    }

    /// Says what was brought back.
    fn show(&self, printer: &Printer, restored: &Restored) -> Result<ExitStatus> {
        for version in &restored.done {
            printer.detail(&line(version));
        }
        for version in &restored.same {
            printer.detail(&format!("{} is there already", shown(&version.path)));
        }
        for (path, why) in &restored.troubles {
            printer.warning(&format!("{}: {}", shown(path), visible(why)));
        }
        if printer.json() {
            printer.result_json(&RestoredDocument {
                dock: self.dock,
                workspace: self.workspace,
                restored: restored.done.iter().map(|version| text(&version.path)).collect(),
                unchanged: restored.same.iter().map(|version| text(&version.path)).collect(),
                failed: restored
                    .troubles
                    .iter()
                    .map(|(path, why)| super::JsonFailure {
                        path: text(path),
                        why: why.clone(),
                    })
                    .collect(),
                bytes: restored.bytes,
            })?;
        } else {
            printer.result(&format!("{}: {}", self.place, summary(restored)));
            if !restored.done.is_empty() {
                printer.note(match self.workspace {
                    Some(_) => "sync-down brings it here",
                    None => "sync-up sends it to a dock",
                });
            }
        }
        match restored.troubles.first() {
            None => Ok(ExitStatus::SUCCESS),
            Some((path, why)) => Err(
                Error::failed(format!("{} was not restored: {}", shown(path), visible(why))).hint(hint!(
                    "it is still kept, in {}; {} --restore {} again",
                    self.trash.display(),
                    self.command,
                    shown(path)
                )),
            ),
        }
    }

    fn json<'v>(&self, version: &'v Version) -> JsonVersion<'v> {
        let time = jiff::Timestamp::from_second(version.when()).unwrap_or_default();
        let file = self.trash.join(std::ffi::OsStr::from_bytes(&version.kept()));
        JsonVersion {
            path: text(&version.path),
            why: version.reason.text(),
            time: time.to_string(),
            kind: match version.item.kind {
                ItemKind::File => "file",
                ItemKind::Directory => "directory",
                ItemKind::Symlink => "symlink",
            },
            size: version.item.stamp.size,
            dock: version.dock.as_deref(),
            file: file.to_string_lossy().into_owned(),
        }
    }
}

fn line(version: &Version) -> String {
    format!(
        "restore      {} ({} {})",
        shown(&version.path),
        version.reason.text(),
        local_time(version.when())
    )
}

fn summary(restored: &Restored) -> String {
    let mut parts = Vec::new();
    if !restored.done.is_empty() {
        parts.push(format!("{} restored ({})", restored.done.len(), size(restored.bytes)));
    }
    for (count, words) in [
        (restored.same.len(), "there already"),
        (restored.troubles.len(), "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {words}"));
        }
    }
    parts.join(", ")
}

fn bytes(versions: &[Version]) -> u64 {
    versions
        .iter()
        .map(|version| version.item.stamp.size)
        .fold(0, u64::saturating_add)
}

/// As clocks on the wall show it here.
fn local_time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}
