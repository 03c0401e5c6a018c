//! Receiving: what changed on the dock is fetched, checked, and put in its place here.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use super::records::{read_records, records_limit};
use super::{NOTED_BYTES, NOTED_FILES, Round, Session, amount, blocking, nonce};
use crate::error::{Error, Result};
use crate::output::progress::bars::Bars;
use crate::sync::clock::now_ns;
use crate::sync::compression::{Compression, Level};
use crate::sync::local::{LocalError, StagingDirectory};
use crate::sync::manifest::RecordedSide;
use crate::sync::plan::{self, Action, Steps};
use crate::sync::receive::{Arrived, receive};
use crate::sync::remote::{self, Shell, broken, call, feed_paths, read_line};
use crate::sync::samples::{self, Survey};
use crate::sync::trash::{Kept, Reason, TrashError};
use crate::sync::{Content, Item, ItemKind, Tree, ancestors, listing, script};

/// A disk's block: a file takes whole blocks, and one more for its inode and name.
const BLOCK: u64 = 4096;

/// Files to be fetched, by how they travel.
#[derive(Debug, Default)]
struct Division {
    compressed: HashMap<Vec<u8>, Item>,
    plain: HashMap<Vec<u8>, Item>,
    level: Level,
}

/// Room that is needed on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DiskUsage {
    bytes: u64,
    /// Files and directories: file systems limit their number, too.
    files: u64,
}

impl DiskUsage {
    /// The room for these files, and for the directories that a plan creates here.
    fn needed(wanted: &HashMap<Vec<u8>, Item>, steps: &Steps, here: &Tree, there: &Tree) -> Self {
        let is_directory = |path: &Vec<u8>| there.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
        let directories = steps
            .iter()
            .filter(|(path, action)| {
                matches!(action, Action::Bring(_)) && !here.contains_key(*path) && is_directory(path)
            })
            .count() as u64;
        let sizes = wanted
            .values()
            .map(|item| item.stamp.size.div_ceil(BLOCK).saturating_add(1));
        let blocks = sizes.fold(directories, u64::saturating_add);
        Self {
            bytes: blocks.saturating_mul(BLOCK),
            files: directories.saturating_add(wanted.len() as u64),
        }
    }
}

/// Files that came from the dock, and are in the stage until they are put in place.
pub(super) struct Delivery {
    pub(super) stage: Arc<StagingDirectory>,
    arrived: HashMap<Vec<u8>, Arrived>,
}

impl Delivery {
    /// A file or link that has arrived, or why it has not.
    pub(super) fn get(&self, path: &[u8]) -> Result<&Arrived, String> {
        self.arrived
            .get(path)
            .ok_or_else(|| "it can't be read on the dock, or changed while it was brought".to_owned())
    }
}

impl<S: Shell> Session<S> {
    /// Fetches what changed on the dock, and removes here what was removed there.
    pub(super) async fn receive(&mut self, round: &mut Round<'_>) -> Result<()> {
        let copies = self.plan_beside(round);
        let wanted = round.wanted(copies.keys());
        let changes = |action: &Action| matches!(action, Action::Bring(_) | Action::RemoveHere | Action::ModeHere(_));
        round.report.conflicts = self.conflicts(round);
        if wanted.is_empty() && !round.steps.values().any(changes) {
            return Ok(());
        }
        let delivery = self.bring_all(round, wanted).await?;
        let counter = self.counter("putting in place", "here", 0);
        let kept = self.keep(round, &delivery).await?;
        for (path, error) in &kept.refused {
            round.trouble(path, error.to_string());
        }
        let steps = std::mem::take(&mut round.steps);
        let stays = |path: &Vec<u8>| kept.refused.contains_key(path);
        for (path, action) in steps.iter().rev().filter(|(path, _)| !stays(path)) {
            if *action == Action::RemoveHere {
                counter.add(1);
                let Some(item) = kept.items.get(path).or_else(|| round.here.tree.get(path)) else {
                    continue;
                };
                match self.local.remove(path, item) {
                    Ok(true) => {
                        self.forget(path);
                        round.report.done.insert(path.clone(), *action);
                    }
                    Ok(false) => {}
                    Err(error) => round.trouble(path, error.to_string()),
                }
            }
        }
        for (path, action) in steps.iter().filter(|(path, _)| !stays(path)) {
            let before = kept.items.get(path).or_else(|| round.here.tree.get(path));
            let result = match action {
                Action::Bring(mode) => self.put(path, *mode, before, round, &delivery),
                Action::ModeHere(mode) => self.change_mode_here(path, *mode, round),
                _ => continue,
            };
            counter.add(1);
            match result {
                Ok(bytes) => {
                    round.report.bytes.1 += bytes;
                    round.report.done.insert(path.clone(), *action);
                }
                Err(error) => round.trouble(path, error),
            }
        }
        // Read-only directories get their modes only now that their files are in them.
        for (path, action) in steps.iter().rev() {
            if let Action::Bring(mode) = action
                && mode & 0o700 != 0o700
                && round.is_directory_there(path)
                && let Ok(item) = self.local.set_mode(path, *mode, ItemKind::Directory)
                && let Some(record) = self.manifest.records.get_mut(path)
            {
                record.here.mode = item.mode;
                self.touched = true;
            }
        }
        round.steps = steps;
        let mut conflicts = std::mem::take(&mut round.report.conflicts);
        for conflict in &mut conflicts {
            if let Some(name) = copies.get(&conflict.path) {
                match self.put_beside(&conflict.path, name, round, &delivery) {
                    Ok(()) => conflict.beside = Some(name.clone()),
                    Err(error) => round.trouble(name, error),
                }
            }
        }
        round.report.conflicts = conflicts;
        // Durable before the manifest says that it has arrived.
        self.settle().await
    }

    /// Fetches these files into a stage, if there is room for them.
    async fn bring_all(&mut self, round: &Round<'_>, wanted: HashMap<Vec<u8>, Item>) -> Result<Delivery> {
        let local = self.local.clone();
        let stage = blocking(move || {
            local
                .stage()
                .map_err(|cause| Error::failed("what comes from the dock can't be put into the project").because(cause))
        })
        .await?;
        let here = &round.here.tree;
        self.check_room(DiskUsage::needed(&wanted, &round.steps, here, &round.there))?;
        let (stage, wanted) = (Arc::new(stage), Arc::new(wanted));
        let mut arrived = HashMap::new();
        if !wanted.is_empty() {
            arrived = self.fetch(&wanted, round.directories_to_bring(), here, &stage).await?;
            // Contents are durable before their names are.
            self.settle().await?;
        }
        Ok(Delivery { stage, arrived })
    }

    /// Puts into the trash what these steps remove and replace here. What can't be kept is not removed, unless the user
    /// asked for all removals; it is replaced anyway, since both sides had it at the last sync, and the user is told.
    async fn keep(&mut self, round: &Round<'_>, delivery: &Delivery) -> Result<Kept> {
        let Some(mut trash) = self.trash.take() else {
            return Ok(Kept::default());
        };
        let is_directory = |path: &Vec<u8>| round.is_directory_there(path);
        let wanted = round.steps.iter().filter_map(|(path, action)| {
            let item = round.here.tree.get(path)?;
            let reason = match action {
                Action::RemoveHere => Reason::Removed,
                Action::Bring(_) if item.kind == ItemKind::Directory && is_directory(path) => return None,
                Action::Bring(_) if item.kind == ItemKind::Directory => Reason::Removed,
                Action::Bring(_) if is_directory(path) || delivery.arrived.contains_key(path) => Reason::Overwritten,
                _ => return None,
            };
            Some((path.clone(), item.clone(), reason))
        });
        let wanted: Vec<(Vec<u8>, Item, Reason)> = wanted.collect();
        let local = self.local.clone();
        let (mut kept, trash, wanted) = blocking(move || {
            trash.begin();
            if !wanted.is_empty() {
                trash.prune();
            }
            let kept = trash.keep_all(&local, wanted.iter().map(|(path, item, reason)| (path, item, *reason)));
            Ok((kept, trash, wanted))
        })
        .await?;
        self.trash = Some(trash);
        let mut unkept = 0;
        for (path, _, reason) in &wanted {
            let goes = *reason == Reason::Overwritten || round.request.brake.is_none();
            if goes && kept.refused.get(path).is_some_and(TrashError::is_no_room) {
                kept.refused.remove(path);
                unkept += 1;
            }
        }
        if unkept > 0 {
            (self.notice)(&format!(
                "{unkept} of what is removed or replaced here is not kept: there is no room for it"
            ));
        }
        Ok(kept)
    }

    /// Makes what was written durable on this machine's disk.
    async fn settle(&self) -> Result<()> {
        let local = self.local.clone();
        blocking(move || {
            local
                .settle()
                .map_err(|cause| Error::failed("what came from the dock can't be kept on this disk").because(cause))
        })
        .await
    }

    /// Checks that what is to come fits onto this disk, before any of it is fetched: bytes and number of files.
    fn check_room(&self, needed: DiskUsage) -> Result<()> {
        let (bytes, files) = self.local.free();
        let (needs, has) = match (bytes, files) {
            (Some(free), _) if free < needed.bytes => (crate::output::size(needed.bytes), crate::output::size(free)),
            (_, Some(free)) if free < needed.files => {
                (format!("{} files and directories", needed.files), free.to_string())
            }
            _ => return Ok(()),
        };
        Err(Error::failed(format!(
            "the dock has {needs} to bring, and {has} are free on the disk of {}",
            self.local.root().display()
        ))
        .hint(
            "make room, bring less (sync-down PATH), or leave it out by a line in .dockerignore; nothing was brought",
        ))
    }

    /// Fetches files, and checks each twice: that it came whole, and that the dock still has it as listed. `directories` are only
    /// announced with them.
    async fn fetch(
        &mut self,
        wanted: &Arc<HashMap<Vec<u8>, Item>>,
        directories: usize,
        here: &Tree,
        stage: &Arc<StagingDirectory>,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        let mut arrived = self.make_here(wanted, here, stage).await?;
        let rest = wanted.iter().filter(|(path, _)| !arrived.contains_key(*path));
        let rest: HashMap<Vec<u8>, Item> = rest.map(|(path, item)| (path.clone(), item.clone())).collect();
        let bytes: u64 = rest.values().map(|item| item.stamp.size).fold(0, u64::saturating_add);
        if rest.len() > NOTED_FILES || bytes > NOTED_BYTES {
            (self.notice)(&format!(
                "bringing {}, {}",
                amount(rest.len(), directories),
                crate::output::size(bytes)
            ));
        }
        if !rest.is_empty() {
            let bars = self.bars("bringing", rest.len(), bytes);
            let Division {
                compressed,
                plain,
                level,
            } = self.divide(&rest).await?;
            let compression = self.workspace.compression;
            let (compressed, plain) = tokio::join!(
                self.fetch_part(compressed, compression, level, stage, &bars),
                self.fetch_part(plain, Compression::Plain, level, stage, &bars)
            );
            arrived.extend(compressed?);
            arrived.extend(plain?);
        }
        let come: Vec<Vec<u8>> = arrived.keys().cloned().collect();
        if come.is_empty() {
            return Ok(arrived);
        }
        // With their parents: a directory may have become a link meanwhile, through which the same paths lead
        // elsewhere.
        let above = come.iter().flat_map(|path| ancestors(path)).map(<[u8]>::to_vec);
        let looked_at: BTreeSet<Vec<u8>> = above.chain(come.iter().cloned()).collect();
        let looked_at: Vec<Vec<u8>> = looked_at.into_iter().collect();
        let (workspace, id) = self.in_workspace();
        let limit = records_limit(looked_at.iter());
        let take: remote::Take<(String, Tree)> =
            Box::new(move |from| Ok((read_line(from)?, read_records(from, limit)?)));
        let next = self.next_generation()?;
        let arguments = [workspace.as_str(), &id, listing::FORMAT, &next];
        let reply = call(
            &self.shell,
            script::STAT,
            &nonce()?,
            &arguments,
            feed_paths(&looked_at),
            take,
        )
        .await?;
        let ((), (generation, now)) = reply.ok("show its files again")?;
        self.take_generation(&generation);
        arrived.retain(|path, arrived| {
            // A link's target must be the one that was judged.
            let is_text = |then: &Item| {
                then.kind != ItemKind::Symlink || then.target.as_deref().map(Content::of) == Some(arrived.content)
            };
            let same = |now: &Item| {
                wanted
                    .get(path)
                    .is_some_and(|then| then.stamp == now.stamp && then.kind == now.kind && is_text(then))
            };
            now.get(path).is_some_and(same)
        });
        Ok(arrived)
    }

    /// Divides files into those that travel compressed and those that do not; of many bytes, samples are read first.
    async fn divide(&self, wanted: &HashMap<Vec<u8>, Item>) -> Result<Division> {
        let compression = self.workspace.compression;
        let all = || wanted.clone();
        if compression == Compression::Plain {
            return Ok(Division {
                plain: all(),
                ..Division::default()
            });
        }
        let Some(survey) = Survey::of(wanted) else {
            return Ok(Division {
                compressed: all(),
                ..Division::default()
            });
        };
        let (text, lengths, began) = (survey.feed(), survey.lengths(), Instant::now());
        let (workspace, id) = self.in_workspace();
        let reply = call(
            &self.shell,
            script::SAMPLES,
            &nonce()?,
            &[&workspace, &id],
            remote::feed_text(text),
            Box::new(move |from| samples::hear(from, lengths, began).map_err(|cause| broken(&cause))),
        )
        .await?;
        // Without samples, all is compressed.
        let heard = reply.ok("show parts of its files").ok().and_then(|((), heard)| heard);
        let level = samples::level(heard.as_ref());
        let (compressed, plain) = survey.divide(heard.as_ref(), compression);
        let of = |paths: Vec<Vec<u8>>| {
            let items = paths.into_iter().filter_map(|path| {
                let item = wanted.get(&path)?.clone();
                Some((path, item))
            });
            items.collect()
        };
        Ok(Division {
            compressed: of(compressed),
            plain: of(plain),
            level,
        })
    }

    /// Fetches these files, compressed in this way; the level is zstd's.
    async fn fetch_part(
        &self,
        wanted: HashMap<Vec<u8>, Item>,
        compression: Compression,
        level: Level,
        stage: &Arc<StagingDirectory>,
        bars: &Bars,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let mut paths: Vec<Vec<u8>> = wanted.keys().cloned().collect();
        paths.sort();
        let (into, bars) = (Arc::clone(stage), bars.clone());
        let take = Box::new(move |from: &mut dyn Read| receive(from, compression, &wanted, &into, &bars));
        let arguments = [workspace.as_str(), &id, compression.word(), level.word()];
        let feed = feed_paths(&paths);
        let reply = call(&self.shell, script::FETCH, &nonce()?, &arguments, feed, take).await?;
        reply.ok("send the files").map(|((), come)| come)
    }

    /// Puts one path in its place here, in exchange for what was there before. Returns its size in bytes.
    fn put(
        &mut self,
        path: &[u8],
        mode: u32,
        before: Option<&Item>,
        round: &Round<'_>,
        delivery: &Delivery,
    ) -> Result<u64, String> {
        let stage = &delivery.stage;
        let item = round.there.get(path).ok_or("it vanished")?;
        let told = |error: LocalError| error.to_string();
        let looked_at = now_ns();
        let (content, placed) = if item.kind == ItemKind::Directory {
            if let Some(before) = before.filter(|before| before.kind != ItemKind::Directory) {
                self.local.remove(path, before).map_err(told)?;
            }
            (Content::of(b""), self.local.make_directory(path, mode).map_err(told)?)
        } else {
            let arrived = delivery.get(path)?;
            if let Some(before) = before.filter(|before| before.kind == ItemKind::Directory)
                && !self.local.remove(path, before).map_err(told)?
            {
                return Err("a directory is in the way that holds ignored files".to_owned());
            }
            if item.kind == ItemKind::File {
                stage
                    .finish(&arrived.staged, mode, item.stamp.mtime)
                    .map_err(|cause| cause.to_string())?;
            }
            let expected = before.filter(|before| before.kind != ItemKind::Directory);
            (
                arrived.content,
                self.local.put(path, &arrived.staged, stage, expected).map_err(told)?,
            )
        };
        // It was just written, so a later change may leave the same stamp: the next sync compares contents.
        let mut side = RecordedSide::of(&placed, round.here.clocks.is_settled(&placed, looked_at));
        if mode != plan::taken(item.mode, before)
            && item.kind != ItemKind::Symlink
            && let Some(base) = self.manifest.records.get(path)
        {
            // This machine's own change of the mode has not reached the dock yet.
            side.mode = base.here.mode;
        }
        let settled = self.workspace.listing.clocks.is_settled(item, self.workspace.clock_ns);
        self.agree(path, item.kind, content, side, RecordedSide::of(item, settled));
        Ok(item.stamp.size)
    }

    fn change_mode_here(&mut self, path: &[u8], mode: u32, round: &Round<'_>) -> Result<u64, String> {
        let item = round.there.get(path).ok_or("it vanished")?;
        let placed = self
            .local
            .set_mode(path, mode, item.kind)
            .map_err(|error| error.to_string())?;
        if let Some(record) = self.manifest.records.get_mut(path) {
            (self.touched, self.agreed) = (true, true);
            record.here = RecordedSide::of(&placed, false);
            record.there.mode = item.mode;
        }
        Ok(0)
    }
}

impl Round<'_> {
    /// The number of directories that this round creates here, or changes.
    fn directories_to_bring(&self) -> usize {
        let brings = self
            .steps
            .iter()
            .filter(|(_, action)| matches!(action, Action::Bring(_)));
        brings.filter(|(path, _)| self.is_directory_there(path)).count()
    }

    /// The files and links to fetch: those of the plan, and the dock's versions of these conflicts.
    fn wanted<'a>(&'a self, conflicts: impl Iterator<Item = &'a Vec<u8>>) -> HashMap<Vec<u8>, Item> {
        let brings = self
            .steps
            .iter()
            .filter(|(_, action)| matches!(action, Action::Bring(_)));
        let paths = brings.map(|(path, _)| path).chain(conflicts);
        let items = paths.filter_map(|path| {
            let item = self.there.get(path)?;
            (item.kind != ItemKind::Directory).then(|| (path.clone(), item.clone()))
        });
        items.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: ItemKind, size: u64) -> Item {
        let stamp = crate::sync::Stamp {
            size,
            ..Default::default()
        };
        Item {
            kind,
            mode: 0o644,
            stamp,
            owner: 0,
            device: 0,
            target: None,
        }
    }

    #[test]
    fn directories_and_empty_files_take_room_too() {
        let there: Tree = [
            ("d", ItemKind::Directory, 0),
            ("d/e", ItemKind::Directory, 0),
            ("here", ItemKind::Directory, 0),
            ("empty", ItemKind::File, 0),
            ("file", ItemKind::File, BLOCK + 1),
        ]
        .into_iter()
        .map(|(path, kind, size)| (path.as_bytes().to_vec(), item(kind, size)))
        .collect();
        let here = Tree::from([(b"here".to_vec(), item(ItemKind::Directory, 0))]);
        let steps: Steps = there.keys().map(|path| (path.clone(), Action::Bring(0o755))).collect();
        let files = there.iter().filter(|(_, item)| item.kind == ItemKind::File);
        let wanted = files.map(|(path, item)| (path.clone(), item.clone())).collect();
        let room = DiskUsage::needed(&wanted, &steps, &here, &there);
        assert_eq!((room.bytes, room.files), ((2 + 1 + 3) * BLOCK, 4));
        // Sizes that no disk has.
        let wanted = HashMap::from([(b"file".to_vec(), item(ItemKind::File, u64::MAX))]);
        assert_eq!(DiskUsage::needed(&wanted, &steps, &here, &there).bytes, u64::MAX);
    }
}
