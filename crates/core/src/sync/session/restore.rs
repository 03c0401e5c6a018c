//! The dock's trash, as a session sees it: what is kept there, and putting it back into the workspace.

use std::collections::HashMap;
use std::io::Read;

use super::records::{read_listing, whole_listing};
use super::{Session, nonce};
use crate::error::{Error, Result};
use crate::sync::remote::{Shell, broken, call, feed_nothing, feed_paths};
use crate::sync::trash::{self, Restored, Version};
use crate::sync::{listing, split, trash_script};

impl<S: Shell> Session<S> {
    /// What is kept in the workspace, the newest first.
    ///
    /// # Errors
    /// A dock that can't be reached, a workspace that is not there or is somebody else's, a list that is refused.
    pub async fn kept_there(&mut self) -> Result<Vec<Version>> {
        self.look(false).await?;
        if !self.workspace.exists {
            return Err(Error::failed(format!(
                "there is no workspace {} on dock {:?}",
                self.workspace.path, self.target.moniker
            ))
            .hint("sync-up makes it; nothing is kept where nothing was synced"));
        }
        let (workspace, id) = self.in_workspace();
        let compression = self.workspace.compression;
        let arguments = [workspace.as_str(), &id, listing::FORMAT, compression.word()];
        let counter = self.counter("looking at", &format!("that {} keeps", self.target.moniker), 0);
        let take = Box::new(move |from: &mut dyn Read| {
            let text = read_listing(from, compression, &counter)?;
            whole_listing(&text, "the dock's list of what it keeps is refused")
        });
        let reply = call(
            &self.shell,
            trash_script::LIST,
            &nonce()?,
            &arguments,
            feed_nothing(),
            take,
        )
        .await?;
        let ((), listing) = reply.ok("show what it keeps")?;
        Ok(trash::versions(&listing.tree))
    }

    /// Puts versions back into the workspace, where they are in the trash no more then. What is there now is kept itself.
    /// They count as changed there: the next sync brings them.
    ///
    /// # Errors
    /// A dock that can't be reached. What concerns single paths is in the result.
    pub async fn restore_there(&mut self, versions: &[Version]) -> Result<Restored> {
        let mut ordered: Vec<&Version> = versions.iter().collect();
        // Those of one directory one behind the other: one command puts them all back.
        ordered.sort_by(|a, b| {
            let key = |version: &Version| (version.entry.clone(), version.reason);
            key(a).cmp(&key(b)).then_with(|| split(&a.path).cmp(&split(&b.path)))
        });
        let paths: Vec<Vec<u8>> = ordered.iter().map(|version| version.kept()).collect();
        let limit = paths
            .iter()
            .map(|path| path.len() as u64 + 4)
            .fold(16, u64::saturating_add);
        let (workspace, id) = self.in_workspace();
        let take = Box::new(move |from: &mut dyn Read| {
            let mut text = Vec::new();
            from.take(limit)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            Ok(text)
        });
        let feed = feed_paths(&paths);
        let reply = call(
            &self.shell,
            trash_script::RESTORE,
            &nonce()?,
            &[&workspace, &id],
            feed,
            take,
        )
        .await?;
        let ((), text) = reply.ok("put back what it keeps")?;
        let outcomes: HashMap<&[u8], u8> = text
            .split(|byte| *byte == 0)
            .filter_map(|line| {
                let (outcome, kept) = line.split_first()?;
                Some((kept.strip_prefix(b"./")?, *outcome))
            })
            .collect();
        let mut restored = Restored::default();
        for version in versions {
            let why = match outcomes.get(version.kept().as_slice()) {
                Some(b'+') => {
                    restored.bytes = restored.bytes.saturating_add(version.item.stamp.size);
                    restored.done.push(version.clone());
                    continue;
                }
                Some(b'=') => {
                    restored.same.push(version.clone());
                    continue;
                }
                Some(b'w') => "something is in the way there: move it, and restore again",
                Some(_) => "the dock could not put it back",
                None => "the dock did not get to it: restore again",
            };
            restored.troubles.push((version.path.clone(), why.to_owned()));
        }
        self.forget_restored(&mut restored).await?;
        Ok(restored)
    }

    /// What is put back must not count as what both sides had before it was taken: where a sync was cut short, that is still
    /// remembered, and the next one would take it again.
    async fn forget_restored(&mut self, restored: &mut Restored) -> Result<()> {
        let (_, id) = self.in_workspace();
        if self.manifest.header.workspace_id != id {
            return Ok(());
        }
        let put_back = restored.done.iter().chain(&restored.same);
        let known = put_back.filter(|version| self.manifest.records.contains_key(&version.path));
        let asked: Vec<Vec<u8>> = known.map(|version| version.path.clone()).collect();
        restored.contents = self.odd_sums(asked).await?;
        if trash::forget(&mut self.manifest.records, &restored.contents) {
            self.memory.remember(&self.manifest)?;
        }
        Ok(())
    }
}
