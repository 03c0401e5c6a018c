//! Listing both sides: the dock's workspace, this machine's files, and the rules for what is left out.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::records::read_listing;
use super::{Report, Session, Target, blocking, nonce, selector, unhex};
use crate::error::{Error, Result};
use crate::hint;
use crate::output::progress::counter::Counter;
use crate::sync::compression::Compression;
use crate::sync::listing::{self, Listing};
use crate::sync::local::Listed;
use crate::sync::owner::Owner;
use crate::sync::remote::{Shell, broken, call, feed_nothing, read_line};
use crate::sync::{is_acceptable, script};

/// The most bytes of a list of unreadable directories.
const LONGEST_UNSEEN: u64 = 64 << 20;
/// How long a changed `.dockerignore` must stay as it is before it is used, and how often that is tried.
const SETTLED: Duration = Duration::from_millis(300);
const SETTLING: usize = 20;
/// Where Jupyter keeps a copy of each notebook, beside it, from its last save by hand: each side has its own.
const CHECKPOINTS: &[u8] = b"**/.ipynb_checkpoints";

/// The dock's side of a project, as it was last listed.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Its absolute path on the dock, without links.
    pub path: String,
    /// Its mark; `None` if there is no workspace yet, or one without a mark.
    pub owner: Option<Owner>,
    /// Whether the directory exists.
    pub exists: bool,
    /// The user's ID on the dock.
    pub(super) uid: u32,
    /// The dock's clock before it was listed, in nanoseconds since 1970.
    pub(super) clock_ns: i64,
    /// The generation that the last sync gave it.
    pub(super) generation: String,
    /// Whether its disk ignores the case of names.
    pub(super) folds: bool,
    /// The best that it has.
    pub(super) compression: Compression,
    /// Whether it has `rsync`.
    pub(super) rsync: bool,
    pub(super) listing: Listing,
    /// Directories that the user there may not list.
    pub(super) unseen: BTreeSet<Vec<u8>>,
}

/// How the last listing of the dock's side went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastLook {
    /// How long it took.
    pub took: Duration,
    /// Whether it differed from the listing before.
    pub changed: bool,
}

impl<S: Shell> Session<S> {
    /// Lists the dock's side; true if it differs from the last time. With `make`, creates and marks a workspace that
    /// does not exist.
    ///
    /// # Errors
    /// A dock that can't be reached, a workspace of another checkout, one that can't be created or listed.
    pub async fn look(&mut self, make: bool) -> Result<bool> {
        let counter = self.counter("looking at", &self.at_dock(), self.manifest.records.len());
        self.look_counted(make, counter).await
    }

    pub(super) async fn look_counted(&mut self, make: bool, counter: Counter) -> Result<bool> {
        let began = Instant::now();
        let changed = self.look_at(make, counter).await?;
        self.last_look = LastLook {
            took: began.elapsed(),
            changed,
        };
        Ok(changed)
    }

    /// How the last listing of the dock's side went.
    pub const fn last_look(&self) -> LastLook {
        self.last_look
    }

    async fn look_at(&mut self, make: bool, counter: Counter) -> Result<bool> {
        // Before the dock is asked anything: a wrong pattern is an error without it.
        let patterns = self.read_rules().await?;
        let mut selector = selector(&patterns)?;
        self.rules = Some(patterns);
        let own = Owner::new(self.local.root(), &self.target.machine, &self.target.user)?;
        let word = nonce()?;
        let kept = self.memory.listing();
        let digest = kept.as_ref().map_or("", |(_, digest)| digest);
        let remembered = self.manifest.header.workspace.clone();
        let arguments = [
            if make { "make" } else { "look" },
            &remembered,
            self.target.base.as_deref().unwrap_or(""),
            &self.target.user,
            &self.target.project,
            digest,
            &own.render(),
            listing::FORMAT,
        ];
        let reply = call(&self.shell, script::LOOK, &word, &arguments, feed_nothing(), {
            let counter = counter.clone();
            Box::new(move |from| read_look(from, &counter))
        })
        .await?;
        let (complaints, complaints_cut) = (reply.complaints.clone(), reply.complaints_cut);
        let ((), looked) = reply.ok("show its workspace")?;
        let Looked {
            mut workspace,
            mark,
            text,
        } = looked;
        let owner = mark.as_deref().and_then(Owner::parse);
        if self.only_known {
            let known = &self.manifest.header.workspace_id;
            if known.is_empty() || owner.as_ref().is_none_or(|owner| owner.id != *known) {
                return Err(another_workspace(
                    &workspace.path,
                    self.local.root(),
                    &self.target.moniker,
                ));
            }
        }
        if !workspace.exists {
            self.workspace = workspace;
            return Ok(true);
        }
        if owner.is_none() && mark.is_some_and(|mark| !mark.is_empty()) {
            return Err(damaged(&workspace.path, &self.target));
        }
        if let Some(owner) = &owner
            && owner.id != self.manifest.header.workspace_id
            && !owner.is_same_checkout(&own)
        {
            return Err(foreign(&workspace.path, owner, &self.target));
        }
        let changed = text.is_some();
        self.owes |= changed;
        let text = match (text, kept) {
            (Some(text), _) => Arc::new(text),
            (None, Some((kept, _))) => Arc::new(kept),
            (None, None) => {
                return Err(Error::failed(
                    "the dock says that nothing changed, and nothing is known of it",
                ));
            }
        };
        let parsing = Arc::clone(&text);
        workspace.owner = owner;
        workspace.listing = blocking(move || {
            listing::read(&parsing, &mut selector)
                .map_err(|cause| Error::failed("the dock's list of files is refused").because(cause))
        })
        .await?;
        self.workspace = workspace;
        if self.workspace.listing.status == 0 {
            if changed && self.memory.is_ours() {
                self.memory.keep_listing(&text)?;
            }
        } else {
            self.find_unseen(&complaints, complaints_cut).await?;
        }
        Ok(changed)
    }

    /// What is left out on both sides: by the project's `.dockerignore`, `.git`, which every git command changes
    /// and which holds all that ever was in the project, and what Jupyter saves beside notebooks.
    pub(super) fn patterns(&self) -> Result<Vec<Vec<u8>>> {
        // The first one: a project may include it again.
        let mut patterns = vec![CHECKPOINTS.to_vec()];
        patterns.extend(self.local.patterns()?);
        if !self.with_git {
            // The last pattern that matches decides, so no pattern of the project includes it again.
            patterns.push(b"**/.git".to_vec());
        }
        Ok(patterns)
    }

    /// [`Session::patterns`], once they rest. New patterns are used only after they have stayed the same for a moment:
    /// an editor or git that rewrites the file leaves it empty or missing for an instant, in which nothing that it
    /// names may be sent.
    async fn read_rules(&self) -> Result<Vec<Vec<u8>>> {
        // A missing and an empty file have the same patterns, and are still different states.
        let read = || Ok::<_, Error>((self.local.look(b".dockerignore").ok(), self.patterns()?));
        let mut last = read()?;
        for _ in 0..SETTLING {
            if self.rules.as_ref().is_none_or(|rules| *rules == last.1) {
                return Ok(last.1);
            }
            tokio::time::sleep(SETTLED).await;
            let now = read()?;
            if now == last {
                return Ok(now.1);
            }
            last = now;
        }
        Err(
            Error::failed("the project's .dockerignore changes all the time, and nothing is sent meanwhile")
                .hint("find out what writes it; the sync goes on when it stays as it is"),
        )
    }

    /// Finds the directories on the dock that can't be read: their contents are unknown, not removed. Any other
    /// complaint in a listing is an error: existing files may be missing from it.
    async fn find_unseen(&mut self, complaints: &str, cut: bool) -> Result<()> {
        let (workspace, id) = self.in_workspace();
        let take = Box::new(|from: &mut dyn Read| {
            let mut text = Vec::new();
            from.take(LONGEST_UNSEEN)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            Ok(text)
        });
        let reply = call(
            &self.shell,
            script::UNSEEN,
            &nonce()?,
            &[&workspace, &id],
            feed_nothing(),
            take,
        )
        .await?;
        let ((), text) = reply.ok("name the directories that can't be read")?;
        let paths = text
            .split(|byte| *byte == 0)
            .filter_map(|path| path.strip_prefix(b"./"));
        self.workspace.unseen = paths.filter(|path| is_acceptable(path)).map(<[u8]>::to_vec).collect();
        match listing::unexplained(complaints, &self.workspace.unseen) {
            None if !cut => Ok(()),
            line => Err(Error::failed(format!("{workspace} on the dock can't be listed"))
                .because(crate::output::visible(
                    line.unwrap_or("it has more to complain about than is read"),
                ))
                .hint("look at it there: what is not listed would count as removed")),
        }
    }

    pub(super) async fn list(&self, rules: Vec<Vec<u8>>) -> Result<Listed> {
        let local = self.local.clone();
        let beside: BTreeSet<Vec<u8>> = self.manifest.header.beside.keys().filter_map(unhex).collect();
        let counter = self.counter("looking at", "here", 0);
        blocking(move || local.list(&rules, &beside, &|| counter.add(1)).map_err(local_error)).await
    }

    pub(super) fn report_root_files(&self, report: &mut Report) {
        report.user = self.workspace.uid;
        if self.workspace.uid == 0 {
            return;
        }
        let tree = &self.workspace.listing.tree;
        let roots = tree.iter().filter(|(_, item)| item.owner == 0);
        report.root_files = roots.map(|(path, _)| path.clone()).collect();
    }
}

fn foreign(workspace: &str, owner: &Owner, target: &Target) -> Error {
    use crate::output::visible;
    Error::failed(format!(
        "{workspace} on dock {:?} is the copy of {} of {}@{}: two checkouts in one workspace would be mixed",
        target.moniker,
        visible(&owner.checkout),
        visible(&owner.user),
        visible(&owner.machine)
    ))
    .hint(hint!(
        "rename the project's folder, or give this machine another directory for workspaces (register-dock --workspace); \
         where that checkout is gone for good: ssh-dock {} rm {}",
        target.moniker,
        crate::shell::quote(&format!("{workspace}/.dockerutils-sync/owner"))
    ))
}

/// That a dock does not have the workspace with which this folder was last synced.
fn another_workspace(workspace: &str, root: &Path, moniker: &str) -> Error {
    Error::failed(format!(
        "dock {moniker:?} does not have the copy of {} that was last synced with it: {workspace} is not there, or not that copy",
        root.display()
    ))
    .hint(hint!(
        "if that machine is to have it: cd {} && sync-up --dock {}",
        root.display(),
        moniker
    ))
}

fn damaged(workspace: &str, target: &Target) -> Error {
    Error::failed(format!(
        "whose copy {workspace} on dock {:?} is can't be read: its mark is damaged",
        target.moniker
    ))
    .hint(hint!(
        "where it is this project's: ssh-dock {} rm {}; files that differ are conflicts then, and none is removed",
        target.moniker,
        crate::shell::quote(&format!("{workspace}/.dockerutils-sync/owner"))
    ))
}

fn local_error(cause: build_context::WalkError) -> Error {
    let usage = matches!(cause, build_context::WalkError::Pattern(_));
    let error = if usage {
        Error::usage("the project's .dockerignore is wrong")
    } else {
        Error::failed("the project's files can't be listed")
    };
    error.because(cause)
}

/// The answer of [`script::LOOK`].
#[derive(Default)]
struct Looked {
    /// Without its owner and its listing, which the answer has as texts.
    workspace: Workspace,
    mark: Option<String>,
    /// `None` if nothing changed.
    text: Option<Vec<u8>>,
}

fn read_look(from: &mut dyn Read, counter: &Counter) -> Result<Looked> {
    let strange = |what: &str| Error::failed(format!("what the dock says of its {what} makes no sense"));
    let path = read_line(from)?;
    if !path.starts_with('/') || path.len() > crate::sync::LONGEST_PATH || path.chars().any(char::is_control) {
        return Err(strange("workspace"));
    }
    let mark = match read_line(from)?.as_str() {
        "absent" => {
            let workspace = Workspace {
                path,
                ..Workspace::default()
            };
            return Ok(Looked {
                workspace,
                ..Looked::default()
            });
        }
        "unmarked" => None,
        line => {
            let length = line
                .strip_prefix("mark ")
                .and_then(|length| length.trim().parse::<u64>().ok());
            let length = length
                .filter(|length| *length <= 8192)
                .ok_or_else(|| strange("workspace's owner"))?;
            let mut text = Vec::new();
            from.take(length)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            Some(String::from_utf8_lossy(&text).into_owned())
        }
    };
    let generation = read_line(from)?
        .strip_prefix("generation ")
        .map(|name| name.trim().to_owned())
        .filter(|name| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| strange("last sync"))?;
    let uid = read_line(from)?.trim().parse().map_err(|_| strange("user"))?;
    let clock_ns = clock(&read_line(from)?).ok_or_else(|| strange("clock"))?;
    let tools = read_line(from)?;
    let has = |tool| tools.split(' ').any(|had| had == tool);
    let (rsync, folds) = (has("rsync"), has("folds"));
    let compression = Compression::of_tools(&tools);
    let text = match read_line(from)?.as_str() {
        "same" => None,
        _ => Some(read_listing(from, compression, counter)?),
    };
    let workspace = Workspace {
        path,
        exists: true,
        uid,
        clock_ns,
        generation,
        folds,
        compression,
        rsync,
        ..Workspace::default()
    };
    Ok(Looked { workspace, mark, text })
}

/// A time of the dock, in nanoseconds since 1970: seconds, and nanoseconds if its `date` prints them.
pub(super) fn clock(line: &str) -> Option<i64> {
    let mut words = line.split(' ');
    let seconds: i64 = words.next()?.parse().ok()?;
    let digits = words.next().filter(|digits| digits.len() == 9);
    let nanoseconds = digits.and_then(|digits| digits.parse().ok());
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(nanoseconds.unwrap_or(0))
}
