//! Large files with small changes travel by rsync, if both sides have it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Round, Session, blocking, nonce};
use crate::error::Result;
use crate::sync::clock::now_ns;
use crate::sync::local::{StagingDirectory, contents_of};
use crate::sync::plan::Action;
use crate::sync::receive::Arrived;
use crate::sync::remote::Shell;
use crate::sync::rsync::{Rsync, RsyncDirection};
use crate::sync::send::{AsRead, Made};
use crate::sync::{Item, Tree};

/// The directory in a stage in which rsync writes files here.
const MADE: &str = "made";

impl<S: Shell> Session<S> {
    /// This machine's rsync, if the dock has one, too.
    fn rsync(&self) -> Option<&Rsync> {
        self.rsync.as_ref().filter(|_| self.workspace.rsync)
    }

    /// Has rsync send large files. Returns the directory on the dock that it wrote them to, and the files that are
    /// there; all others are sent the usual way.
    pub(super) async fn make_there(&self, round: &Round<'_>) -> Result<(String, Made)> {
        let (here, there) = (&round.here.tree, &round.there);
        let directory = format!("made.{}", nonce()?);
        let Some(rsync) = self.rsync() else {
            return Ok((directory, Made::new()));
        };
        let generated = self.generated.as_ref().map(|generated| &generated.path);
        let sent = round
            .steps
            .iter()
            .filter(|(_, action)| matches!(action, Action::Send(_)));
        let worth = sent
            .map(|(path, _)| path)
            .filter(|path| {
                here.get(*path)
                    .is_some_and(|item| rsync.is_worth(item, there.get(*path)))
            })
            .filter(|path| generated != Some(path));
        // rsync and the digest each read the file: a change in between must show in its stamp.
        let is_still = |path: &Vec<u8>| {
            let looked_at = now_ns();
            let item = self.local.look(path).ok()??;
            round
                .settling
                .here
                .is_settled(&item, looked_at)
                .then_some((path.clone(), item))
        };
        let before: Vec<(Vec<u8>, Item)> = worth.filter_map(is_still).collect();
        if before.is_empty() || !self.is_trusted(rsync).await {
            return Ok((directory, Made::new()));
        }
        self.notice_large("sending", before.len());
        let paths: Vec<Vec<u8>> = before.iter().map(|(path, _)| path.clone()).collect();
        let names: Vec<&[u8]> = before.iter().map(|(path, _)| path.as_slice()).collect();
        let local = self.local.clone();
        let bytes = before.iter().map(|(_, item)| item.stamp.size);
        let bars = self.bars("sending by rsync", before.len(), bytes.fold(0, u64::saturating_add));
        let (made, contents) = tokio::join!(
            rsync.make(
                RsyncDirection::Up(&directory),
                self.local.root(),
                &self.workspace.path,
                &names,
                &bars
            ),
            blocking(move || Ok(local.contents(&paths)))
        );
        let contents = contents?;
        if let Err(cause) = made {
            self.notice_failed(&cause);
            return Ok((directory, Made::new()));
        }
        let same = |path: &[u8], item: &Item| matches!(self.local.look(path), Ok(Some(now)) if now.stamp == item.stamp);
        let looked_at_ns = now_ns();
        let made = before.into_iter().filter(|(path, item)| same(path, item));
        let made = made.filter_map(|(path, item)| {
            let content = *contents.get(&path)?;
            let read = AsRead {
                content,
                item,
                looked_at_ns: Some(looked_at_ns),
            };
            Some((path, read))
        });
        Ok((directory, made.collect()))
    }

    /// Has rsync fetch large files. Returns those that arrived; all others are fetched the usual way.
    pub(super) async fn make_here(
        &self,
        wanted: &Arc<HashMap<Vec<u8>, Item>>,
        here: &Tree,
        stage: &Arc<StagingDirectory>,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        let Some(rsync) = self.rsync() else {
            return Ok(HashMap::new());
        };
        let worth = wanted
            .iter()
            .filter(|(path, item)| rsync.is_worth(item, here.get(*path)));
        let paths: Vec<Vec<u8>> = worth.map(|(path, _)| path.clone()).collect();
        if paths.is_empty() || !self.is_trusted(rsync).await {
            return Ok(HashMap::new());
        }
        let bytes = paths
            .iter()
            .filter_map(|path| wanted.get(path))
            .map(|item| item.stamp.size)
            .fold(0, u64::saturating_add);
        self.notice_large("bringing", paths.len());
        let names: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let directory = stage.directory(MADE);
        let bars = self.bars("bringing by rsync", paths.len(), bytes);
        let made = rsync.make(
            RsyncDirection::Down(&directory, bytes),
            self.local.root(),
            &self.workspace.path,
            &names,
            &bars,
        );
        if let Err(cause) = made.await {
            self.notice_failed(&cause);
            return Ok(HashMap::new());
        }
        let (local, wanted, stage) = (self.local.clone(), Arc::clone(wanted), Arc::clone(stage));
        blocking(move || {
            let arrived = paths.into_iter().enumerate().filter_map(|(number, path)| {
                let staged = format!("{MADE}-{number}");
                let item = local.take(&stage, &directory, &path, &staged).ok()??;
                // A file that changed since it was listed comes with the next sync.
                let same = wanted
                    .get(&path)
                    .is_some_and(|wanted| wanted.stamp.size == item.stamp.size);
                let content = contents_of(stage.open(&staged).ok().filter(|_| same)?)?;
                Some((path, Arrived { staged, content }))
            });
            Ok(arrived.collect())
        })
        .await
    }

    /// Whether this machine's rsync is safe to use with a dock; if not, the user is told why, once.
    async fn is_trusted(&self, rsync: &Rsync) -> bool {
        let why = rsync.distrust().await;
        if let Some(why) = &why
            && !self.is_distrust_told.swap(true, Ordering::Relaxed)
        {
            (self.notice)(&format!("{why}: large files travel whole"));
        }
        why.is_none()
    }

    fn notice_large(&self, doing: &str, count: usize) {
        (self.notice)(&match count {
            1 => format!("{doing} what changed in a large file, by rsync"),
            count => format!("{doing} what changed in {count} large files, by rsync"),
        });
    }

    fn notice_failed(&self, cause: &io::Error) {
        (self.notice)(&format!("rsync failed, and all of it travels: {cause}"));
    }
}
