//! Sending: what changed here goes to the dock, which puts it in its place.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use super::look::clock;
use super::records::{read_records, records_limit};
use super::{NOTED_BYTES, NOTED_FILES, Outcome, Round, Session, amount, blocking, nonce};
use crate::agent::target::Exit;
use crate::error::{Error, Result};
use crate::sync::compression::Compression;
use crate::sync::manifest::RecordedSide;
use crate::sync::plan::{Action, Steps};
use crate::sync::remote::{self, Shell, broken, call, read_line};
use crate::sync::samples::{self, Survey};
use crate::sync::send::{AsRead, Sent, UploadBatch};
use crate::sync::{Item, ItemKind, Tree, ancestors, below, listing, script, shown, split, trash};
use crate::version;

/// Why something is not removed on the dock.
const FULL_THERE: &str =
    "it stays on the dock: there is no room to keep it there for a week, as what a sync removes is";
/// How many entries that git ignores are named.
const NAMED: usize = 3;

impl<S: Shell> Session<S> {
    /// Says, once for a project and a dock, that most of what is sent is ignored by git, and how to keep it here.
    async fn notice_ignored_by_git(&self, steps: &Steps, here: &Tree) -> Result<()> {
        const TOLD: &str = "told-ignored-by-git";
        if self.memory.is_noted(TOLD) {
            return Ok(());
        }
        let root = self.local.root().to_owned();
        let ignored = blocking(move || Ok(version::ignored_by_git(&root))).await?;
        let sent = steps.iter().filter(|(_, action)| matches!(action, Action::Send(_)));
        let sent = sent.filter_map(|(path, _)| here.get(path).map(|item| (path, item)));
        let (mut all, mut bytes, mut files) = (0_u64, 0_u64, 0_usize);
        let mut tops: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (path, item) in sent.filter(|(_, item)| item.kind == ItemKind::File) {
            all = all.saturating_add(item.stamp.size);
            let top = std::iter::once(path.as_slice()).chain(ancestors(path));
            if let Some(top) = top.filter_map(|above| ignored.get(above)).next() {
                bytes = bytes.saturating_add(item.stamp.size);
                files += 1;
                *tops.entry(top).or_default() += item.stamp.size;
            }
        }
        if bytes <= all / 2 {
            return Ok(());
        }
        self.memory.note(TOLD)?;
        let mut tops: Vec<(&[u8], u64)> = tops.into_iter().collect();
        tops.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let lines: Vec<String> = tops
            .iter()
            .take(NAMED)
            .map(|(path, _)| crate::shell::quote(&String::from_utf8_lossy(path)).into_owned())
            .collect();
        (self.notice)(&format!(
            "{} of this ({files} {}) are what .gitignore names. What no container needs stays here by .dockerignore: printf '%s\\n' {} >> .dockerignore",
            crate::output::size(bytes),
            if files == 1 { "file" } else { "files" },
            lines.join(" "),
        ));
        Ok(())
    }

    /// Sends what changed here, and removes on the dock what was removed here.
    pub(super) async fn send(&mut self, round: &mut Round<'_>) -> Result<Outcome> {
        let (directory, made) = self.make_there(round).await?;
        let precise = self.workspace.listing.precise;
        let here = &round.here.tree;
        let batch = Arc::new(UploadBatch::pack(&round.steps, here, &round.there, precise, made));
        if batch.is_empty() {
            return Ok(Outcome::Done);
        }
        let (what, size) = (amount(batch.files, batch.folders), crate::output::size(batch.bytes));
        if std::mem::replace(&mut self.is_sending_said, true) {
            // The report counts it with the rest.
            if batch.files + batch.folders > 0 {
                (self.notice)(&format!("sending {what} more, {size}, which came or changed meanwhile"));
            }
        } else if batch.files > NOTED_FILES || batch.bytes > NOTED_BYTES {
            self.notice_ignored_by_git(&round.steps, here).await?;
            (self.notice)(&format!("sending {what}, {size}"));
        } else {
            self.is_sending_said = false;
        }
        match self.apply(round, &batch, &directory).await? {
            Some((sent, applied)) => Ok(self.note_applied(round, &batch, sent, applied)),
            None => Ok(Outcome::Again),
        }
    }

    /// Feeds a batch to the dock, which puts it in place; `None` where the workspace changed meanwhile, and nothing was
    /// done.
    async fn apply(
        &mut self,
        round: &Round<'_>,
        batch: &Arc<UploadBatch>,
        directory: &str,
    ) -> Result<Option<(Sent, Applied)>> {
        let limit = records_limit(round.steps.keys());
        let (workspace, id) = self.in_workspace();
        let compression = self.compression_for(batch).await?;
        let next = self.next_generation()?;
        let arguments = [
            workspace.as_str(),
            &id,
            listing::expectation_format(self.workspace.listing.precise),
            listing::FORMAT,
            compression.word(),
            directory,
            &next,
            &round.bytes_taken_there().div_ceil(1024).to_string(),
            &(trash::KEPT_BYTES / 1024).to_string(),
            &trash::KEPT_SECONDS.to_string(),
            if round.request.brake.is_none() { "delete" } else { "" },
        ];
        let (sending, local, generated) = (Arc::clone(batch), self.local.clone(), self.generated.clone());
        let bars = self.bars("sending", batch.files, batch.bytes);
        let moved = bars.clone();
        let feed: remote::Feed<Sent> = Box::new(move |to| {
            let mut to = io::BufWriter::with_capacity(256 * 1024, to);
            let sent = sending.write(&mut to, &local, generated.as_ref(), compression.format(), &moved)?;
            io::Write::flush(&mut to).map_err(|cause| broken(&cause))?;
            moved.retitle("the dock puts it in place");
            Ok(sent)
        });
        let reply = call(
            &self.shell,
            script::APPLY,
            &nonce()?,
            &arguments,
            feed,
            Box::new(move |from| read_applied(from, limit)),
        )
        .await?;
        bars.finish();
        if reply.exit == Exit::Code(script::CHANGED_MEANWHILE) {
            return Ok(None);
        }
        let complaints = reply.complaints.clone();
        let (sent, mut applied) = reply.ok("take the files")?;
        applied.complaints = complaints;
        Ok(Some((sent, applied)))
    }

    /// Records what the dock did with a batch, and what it could not do.
    fn note_applied(
        &mut self,
        round: &mut Round<'_>,
        batch: &UploadBatch,
        sent: Sent,
        mut applied: Applied,
    ) -> Outcome {
        self.notice_growing(&sent.growing);
        self.take_generation(&applied.generation);
        for item in applied.tree.values_mut() {
            item.device = listing::below_root(item.device, self.workspace.listing.device);
        }
        let stuck = batch.paths_of(&applied.stuck);
        let changed = batch.paths_of(&applied.changed);
        let full = batch.paths_of(&applied.full);
        let troubles = full.iter().map(|path| (path.clone(), FULL_THERE.to_owned()));
        round.report.troubles.extend(troubles);
        // From here on, the dock's side was listed when the batch had been put in place.
        round.settling.there_ns = applied.clock_ns;
        let steps = std::mem::take(&mut round.steps);
        let tried = |path: &Vec<u8>| !changed.contains(path) && !full.contains(path);
        for (path, action) in steps.iter().filter(|(path, _)| tried(path)) {
            let result = applied.tree.get(path);
            let noted = match action {
                Action::Send(mode) => match (sent.files.get(path), result.filter(|_| !stuck.contains(path))) {
                    (Some(read), result) => self.note_sent(round, path, *mode, read, result),
                    (None, _) => continue,
                },
                Action::RemoveThere => match result {
                    None => {
                        self.forget(path);
                        round.there.remove(path);
                        Ok(())
                    }
                    // The directory still holds ignored files.
                    Some(result) if result.kind == ItemKind::Directory => continue,
                    Some(_) => Err(Refusal::AsSaid),
                },
                Action::ModeThere(mode) => match (result, round.here.tree.get(path)) {
                    (Some(result), _) if result.mode != *mode && applied.complaints.contains("not permitted") => {
                        Err(Refusal::Mode)
                    }
                    (Some(result), Some(item)) => {
                        let Some(content) = self.content(path, item.kind, &round.contents) else {
                            continue;
                        };
                        let (own, side) = (round.settling.here(item), round.settling.there(result));
                        self.agree(path, item.kind, content, own, side);
                        round.there.insert(path.clone(), result.clone());
                        Ok(())
                    }
                    _ => continue,
                },
                _ => continue,
            };
            match noted {
                Ok(()) => {
                    round.report.done.insert(path.clone(), *action);
                }
                Err(Refusal::Mode) => round.trouble(path, "its mode can't be changed there: it is another user's"),
                Err(Refusal::AsSaid) => {
                    let why = refused(path, &round.there, self.workspace.uid, &applied.complaints);
                    round.trouble(path, why);
                }
            }
        }
        round.steps = steps;
        let is_done = sent.skipped.is_empty() && changed.is_empty();
        round.report.troubles.extend(sent.skipped);
        if is_done { Outcome::Done } else { Outcome::Again }
    }

    /// Records that a file has arrived on the dock; an error if what is there is not what was sent.
    fn note_sent(
        &mut self,
        round: &mut Round<'_>,
        path: &[u8],
        mode: u32,
        read: &AsRead,
        result: Option<&Item>,
    ) -> Result<(), Refusal> {
        let item = &read.item;
        let arrived = result.filter(|result| {
            result.kind == item.kind
                && result.stamp.size == self.size_of(path, item)
                && (item.kind != ItemKind::File || result.stamp.mtime == item.stamp.mtime.max(0))
        });
        let result = arrived.ok_or(Refusal::AsSaid)?;
        let mut side = round.settling.there(result);
        if mode != item.mode
            && let Some(base) = self.manifest.records.get(path)
        {
            // The dock's own change of the mode has not reached this machine yet.
            side.mode = base.there.mode;
        }
        let looked_at_ns = read.looked_at_ns.unwrap_or(round.settling.here_ns);
        let own = RecordedSide::of(item, round.settling.here.is_settled(item, looked_at_ns));
        self.agree(path, item.kind, read.content, own, side);
        round.there.retain_below(path, result.kind);
        round.there.insert(path.to_vec(), result.clone());
        round.report.bytes.0 += item.stamp.size;
        Ok(())
    }

    /// How a batch is compressed on its way to the dock.
    async fn compression_for(&self, batch: &UploadBatch) -> Result<Compression> {
        let files = batch.files(self.generated.as_ref());
        let best = self.workspace.compression;
        let Some(survey) = Survey::of(&files).filter(|_| best != Compression::Plain) else {
            return Ok(best);
        };
        let local = self.local.clone();
        let sampled = tokio::task::spawn_blocking(move || {
            let samples = survey.read(&local)?;
            Some(survey.gets_smaller(&files, samples))
        });
        // A file that can't be read now is reported when it is sent.
        if let Ok(Some(false)) = sampled.await {
            return Ok(Compression::Plain);
        }
        if best == Compression::Zstd {
            // It is faster than any link through ssh.
            return Ok(best);
        }
        let (workspace, id) = self.in_workspace();
        let (feed, take) = samples::probe(batch.bytes, Instant::now());
        let reply = call(&self.shell, script::PROBE, &nonce()?, &[&workspace, &id], feed, take).await?;
        let is_fast = reply
            .ok("be asked how fast the link is")
            .is_ok_and(|((), is_fast)| is_fast);
        Ok(if is_fast { Compression::Plain } else { best })
    }

    /// Says once for each file that keeps growing that it is sent as it was.
    fn notice_growing(&mut self, growing: &[Vec<u8>]) {
        for path in growing {
            if self.growing.insert(path.clone()) {
                (self.notice)(&format!(
                    "{} grows: what it had when it was read is sent, and the rest with the next sync",
                    shown(path)
                ));
            }
        }
    }

    /// The size of what was sent, which for the version file differs from the file here.
    fn size_of(&self, path: &[u8], item: &Item) -> u64 {
        match &self.generated {
            Some(generated) if generated.path == path => generated.text.len() as u64,
            _ => item.stamp.size,
        }
    }
}

impl Round<'_> {
    /// The bytes that this round moves into the dock's trash.
    fn bytes_taken_there(&self) -> u64 {
        let takes = |action: &Action| matches!(action, Action::Send(_) | Action::RemoveThere);
        let taken = self.steps.iter().filter(|(_, action)| takes(action));
        let sizes = taken.filter_map(|(path, _)| self.there.get(path).map(|item| item.stamp.size));
        sizes.fold(0, u64::saturating_add)
    }
}

/// Why the dock did not do what was to be done to a path.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// It may not change the mode.
    Mode,
    /// What it said, if anything.
    AsSaid,
}

/// A refusal in words: the dock's own, unless the cause is a directory of root's.
fn refused(path: &[u8], there: &Tree, uid: u32, complaints: &str) -> String {
    match there.get(split(path).0) {
        Some(parent) if parent.owner == 0 && uid != 0 => {
            "its directory belongs to root on the dock, made by a container: sync-down --chown gives both to you"
                .to_owned()
        }
        _ => {
            let is_refusal = |line: &&str| line.contains("denied") || line.contains("cannot") || line.contains("can't");
            let line = complaints.lines().find(is_refusal);
            crate::output::visible(line.unwrap_or("the dock did not put it in place"))
        }
    }
}

/// Removing what was below a path that is no directory any more.
trait RetainBelow {
    fn retain_below(&mut self, path: &[u8], kind: ItemKind);
}

impl RetainBelow for Tree {
    fn retain_below(&mut self, path: &[u8], kind: ItemKind) {
        if kind == ItemKind::Directory {
            return;
        }
        let lower: Vec<Vec<u8>> = below(self, path).map(|(path, _)| path.clone()).collect();
        for path in lower {
            self.remove(&path);
        }
    }
}

/// The answer of [`script::APPLY`].
struct Applied {
    /// Batches that could not be put in place.
    stuck: Vec<Vec<u8>>,
    /// Batches that were not applied, because something in their place is not as it was listed.
    changed: Vec<Vec<u8>>,
    /// Batches that were not removed, because the trash has no room for them.
    full: Vec<Vec<u8>>,
    clock_ns: i64,
    generation: String,
    tree: Tree,
    /// What its tools said on stderr.
    complaints: String,
}

fn read_applied(from: &mut dyn Read, limit: u64) -> Result<Applied> {
    let (mut stuck, mut changed, mut full) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = limit;
    loop {
        let line = read_line(from)?;
        left = left.saturating_sub(line.len() as u64 + 1);
        let (word, batch) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        let batches = match word {
            "done" => break,
            "stuck" if left > 0 => &mut stuck,
            "changed" if left > 0 => &mut changed,
            "full" if left > 0 => &mut full,
            _ => {
                return Err(Error::failed(format!(
                    "what the dock says of the files makes no sense: {}",
                    shown(line.as_bytes())
                )));
            }
        };
        batches.push(batch.as_bytes().to_vec());
    }
    Ok(Applied {
        stuck,
        changed,
        full,
        // Without a time, the next sync compares contents.
        clock_ns: clock(&read_line(from)?).unwrap_or_default(),
        generation: read_line(from)?,
        tree: read_records(from, limit)?,
        complaints: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dock_could_not_do_is_no_longer_a_list_than_what_it_was_asked_for() {
        let said = b"stuck p1\nchanged p3\nstuck p2\ndone 1\n12\n\n//status 0\n";
        let applied = read_applied(&mut said.as_slice(), 1000).unwrap();
        assert_eq!((applied.stuck.len(), applied.changed.len()), (2, 1));
        // It would never end.
        let endless = b"stuck a\n".repeat(1000);
        let mut said = endless.as_slice().chain(io::repeat(b'a'));
        assert!(read_applied(&mut said, 1000).is_err());
    }
}
