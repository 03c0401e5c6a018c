//! What both sides agree on, and the workspace's generation: recorded here, and told to the dock.

use std::path::Path;

use super::{Round, Session, nonce};
use crate::error::{Error, Result};
use crate::hint;
use crate::sync::clock::Clocks;
use crate::sync::local::Local;
use crate::sync::manifest::{Header, Manifest, Record, RecordedSide, Records};
use crate::sync::plan::{Action, Contents};
use crate::sync::remote::{self, Shell, call, feed_nothing, read_line};
use crate::sync::{Content, Item, ItemKind, script};

/// That a project's folder is not the one that was last synced with the dock.
pub(crate) fn another_folder(root: &Path, moniker: &str) -> Error {
    Error::failed(format!(
        "{} is not the folder that was last synced with dock {moniker:?}: another one is in its place",
        root.display()
    ))
    .hint(hint!(
        "if it is to be in step with the copy there: cd {} && sync-up --dock {}",
        root.display(),
        moniker
    ))
}

impl<S: Shell> Session<S> {
    /// Decides whether what is remembered applies. It does for the same workspace, project folder and machine, and in
    /// the generation in which the last sync left the workspace. Otherwise contents are compared, and nothing counts as
    /// removed.
    ///
    /// # Errors
    /// Another project folder, where [`Session::only_known`] says so.
    pub(super) fn judge_memory(&mut self) -> Result<()> {
        let (_, id) = self.in_workspace();
        let root = self
            .local
            .identity()
            .map_err(|cause| Error::failed("the project's folder can't be read").because(cause))?;
        let header = &self.manifest.header;
        if self.only_known {
            // This folder may be open while its path has become another one's.
            let in_place = Local::open(self.local.root())
                .ok()
                .and_then(|local| local.identity().ok());
            if !(header.root.is(&root) && in_place.is_some_and(|in_place| in_place.is(&root))) {
                return Err(another_folder(self.local.root(), &self.target.moniker));
            }
        }
        let (is_workspace, is_machine, is_root) = (
            header.workspace_id == id && !id.is_empty(),
            header.machine == self.target.machine,
            header.root.is(&root),
        );
        let generation = &self.workspace.generation;
        let is_ours = is_workspace && is_machine && is_root;
        if is_ours && header.generation == *generation {
            return Ok(());
        }
        if is_ours && self.memory.expected(&self.manifest).contains(generation) {
            // The last sync was cut off after the dock had recorded its generation.
            self.manifest.header.generation.clone_from(generation);
            return match self.memory.is_ours() {
                true => self.memory.remember(&self.manifest),
                false => Ok(()),
            };
        }
        if !self.manifest.records.is_empty() && is_workspace {
            let why = match (is_machine, is_root) {
                (false, _) => "what is remembered of the last sync is another machine's".to_owned(),
                (_, false) => format!("{} is not the folder that was last synced", self.local.root().display()),
                _ => format!(
                    "the workspace on dock {:?} is not as the last sync left it: a snapshot or a backup took its place",
                    self.target.moniker
                ),
            };
            (self.notice)(&format!(
                "{why}; files are compared by their contents, and nothing is removed"
            ));
        }
        let mut header = Header::new(&id, &self.workspace.path);
        header.generation.clone_from(generation);
        header.machine.clone_from(&self.target.machine);
        header.root = root;
        header.beside = std::mem::take(&mut self.manifest.header.beside);
        self.manifest = Manifest {
            header,
            records: Records::new(),
        };
        self.begun_anew = true;
        Ok(())
    }

    /// The generation that this round gives the workspace. It is recorded here before the dock hears of it: wherever
    /// the round is cut off, the next sync recognizes it as ours.
    pub(super) fn next_generation(&mut self) -> Result<String> {
        if let Some(next) = &self.next {
            return Ok(next.clone());
        }
        let next = nonce()?;
        self.memory.expect(&self.manifest, &next)?;
        self.next = Some(next.clone());
        Ok(next)
    }

    /// Whether the dock has recorded this round's generation.
    fn is_told(&self) -> bool {
        self.next.as_ref() == Some(&self.workspace.generation)
    }

    /// Saves what both sides agree on now, if it changed, and has the dock record the generation.
    pub(super) async fn remember(&mut self) -> Result<()> {
        if self.agreed && !self.is_told() {
            let next = self.next_generation()?;
            let (workspace, id) = self.in_workspace();
            let arguments = [workspace.as_str(), &id, &next];
            let take: remote::Take<String> = Box::new(read_line);
            let reply = call(&self.shell, script::MARK, &nonce()?, &arguments, feed_nothing(), take).await?;
            self.take_generation(&reply.ok("write down that it is in step")?.1);
        }
        if self.touched {
            self.manifest.header.generation.clone_from(&self.workspace.generation);
            self.memory.remember(&self.manifest)?;
        }
        Ok(())
    }

    /// Reads the generation that a script recorded. A dock with a full disk keeps the last one.
    pub(super) fn take_generation(&mut self, line: &str) {
        if let Some(next) = self
            .next
            .as_ref()
            .filter(|next| line.trim() == format!("generation {next}"))
        {
            self.workspace.generation.clone_from(next);
        }
    }

    /// Records what both sides agree on already.
    pub(super) fn write_down(&mut self, round: &Round<'_>) {
        let settling = &round.settling;
        for (path, action) in &round.steps {
            match action {
                Action::Forget => {
                    self.forget(path);
                }
                Action::Agree => {
                    if let (Some(here), Some(there)) = (round.here.tree.get(path), round.there.get(path))
                        && let Some(content) = self.content(path, here.kind, &round.contents)
                    {
                        self.agree(path, here.kind, content, settling.here(here), settling.there(there));
                    }
                }
                _ => {}
            }
        }
    }

    /// Records that both sides have these contents.
    pub(super) fn agree(
        &mut self,
        path: &[u8],
        kind: ItemKind,
        content: Content,
        here: RecordedSide,
        there: RecordedSide,
    ) {
        let record = Record {
            kind,
            content,
            here,
            there,
        };
        let same = |before: &Record| {
            (before.kind, before.content) == (kind, content)
                && (before.here.mode, before.there.mode) == (here.mode, there.mode)
        };
        let before = self.manifest.records.insert(path.to_vec(), record);
        self.touched |= before.as_ref() != self.manifest.records.get(path);
        self.agreed |= !before.as_ref().is_some_and(same);
    }

    /// Records that a path is gone on both sides.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let known = self.manifest.records.remove(path).is_some();
        self.touched |= known;
        self.agreed |= known;
    }

    /// The digest of a path's contents, if it is known without reading the file.
    pub(super) fn content(&self, path: &[u8], kind: ItemKind, contents: &Contents) -> Option<Content> {
        if kind == ItemKind::Directory {
            return Some(Content::of(b""));
        }
        let known = contents.here.get(path).or_else(|| contents.there.get(path)).copied();
        known.or_else(|| self.manifest.records.get(path).map(|record| record.content))
    }
}

/// Tells whether a later change of a file would show in its stamp: the clocks of both sides, and when each was listed.
#[derive(Clone)]
pub(super) struct Settling {
    pub(super) here: Clocks,
    pub(super) here_ns: i64,
    pub(super) there: Clocks,
    pub(super) there_ns: i64,
}

impl Settling {
    pub(super) fn here(&self, item: &Item) -> RecordedSide {
        RecordedSide::of(item, self.here.is_settled(item, self.here_ns))
    }

    pub(super) fn there(&self, item: &Item) -> RecordedSide {
        RecordedSide::of(item, self.there.is_settled(item, self.there_ns))
    }
}
