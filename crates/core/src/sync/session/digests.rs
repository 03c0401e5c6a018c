//! The digests of files, and the targets of links, on both sides.

use std::collections::HashMap;
use std::io::Read;

use super::records::CountingLines;
use super::{Session, blocking, nonce};
use crate::error::Result;
use crate::output::progress::counter::Counter;
use crate::sync::plan::{Contents, Sides, SyncRequest};
use crate::sync::remote::{Shell, broken, call, feed_paths};
use crate::sync::send::Generated;
use crate::sync::{Content, ItemKind, LONGEST_PATH, Tree, script};

/// The most bytes of link targets that are read in one call.
const LONGEST_LINKS: u64 = 64 << 20;

impl<S: Shell> Session<S> {
    /// Computes the digests that the plan depends on, on both sides.
    pub(super) async fn ask(&self, sides: &Sides<'_>, request: &SyncRequest<'_>) -> Result<Contents> {
        let (ask_here, ask_there) = sides.questions(request);
        let local = self.local.clone();
        let counter = self.counter("comparing", &self.with_dock(), 0);
        let counting = counter.clone();
        let (here, there) = tokio::join!(
            blocking(move || Ok(local.contents_counted(&ask_here, &|| counting.add(1)))),
            self.contents_there(ask_there, sides.there, &counter)
        );
        let mut contents = Contents {
            here: here?,
            there: there?,
        };
        if let Some(Generated { path, text }) = &self.generated
            && sides.here.contains_key(path)
        {
            contents.here.insert(path.clone(), Content::of(text));
        }
        Ok(contents)
    }

    async fn contents_there(
        &self,
        paths: Vec<Vec<u8>>,
        tree: &Tree,
        counter: &Counter,
    ) -> Result<HashMap<Vec<u8>, Content>> {
        let is_plain = |path: &Vec<u8>| {
            tree.get(path).is_some_and(|item| item.kind == ItemKind::File)
                && !path.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\'))
        };
        let (plain, odd): (Vec<_>, Vec<_>) = paths.into_iter().partition(is_plain);
        let (plain, odd) = tokio::join!(self.sums(plain, counter.clone()), self.odd_sums(odd));
        let mut all = plain?;
        all.extend(odd?);
        Ok(all)
    }

    async fn sums(&self, paths: Vec<Vec<u8>>, counter: Counter) -> Result<HashMap<Vec<u8>, Content>> {
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let limit = paths.iter().map(|path| path.len() as u64 + 80).sum::<u64>();
        let take = Box::new(move |from: &mut dyn Read| {
            let mut text = Vec::new();
            CountingLines(from.take(limit), &counter)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
                let (sum, name) = line.split_at_checked(64)?;
                let name = name.strip_prefix(b"  ./").or_else(|| name.strip_prefix(b" *./"))?;
                Some((name.to_vec(), Content::from_hex(sum)?))
            });
            Ok(lines.collect())
        });
        let feed = feed_paths(&paths);
        let reply = call(&self.shell, script::SUMS, &nonce()?, &[&workspace, &id], feed, take).await?;
        reply.ok("read its files").map(|((), sums)| sums)
    }

    pub(super) async fn odd_sums(&self, paths: Vec<Vec<u8>>) -> Result<HashMap<Vec<u8>, Content>> {
        let limit = paths.len() as u64 * (LONGEST_PATH as u64 + 80);
        let content = |answer: &[u8]| match answer {
            [b'l', target @ ..] => Some(Content::of(target)),
            [b'f', sum @ ..] => Content::from_hex(sum),
            _ => None,
        };
        self.odd_answers(paths, limit, content).await
    }

    /// Reads the targets of links on the dock that are not known yet. Those that the dock does not answer stay unknown.
    pub(super) async fn read_links(&self, links: &[Vec<u8>], there: &mut Tree) -> Result<()> {
        let unknown = |path: &&Vec<u8>| there.get(*path).is_some_and(|item| item.target.is_none());
        let paths: Vec<Vec<u8>> = links.iter().filter(unknown).cloned().collect();
        let text = |answer: &[u8]| answer.strip_prefix(b"l").map(<[u8]>::to_vec);
        for (path, target) in self.odd_answers(paths, LONGEST_LINKS, text).await? {
            if let Some(item) = there.get_mut(&path) {
                item.target = Some(target);
            }
        }
        Ok(())
    }

    async fn odd_answers<T: Send + 'static>(
        &self,
        paths: Vec<Vec<u8>>,
        limit: u64,
        meaning: impl Fn(&[u8]) -> Option<T> + Send + 'static,
    ) -> Result<HashMap<Vec<u8>, T>> {
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let feed = feed_paths(&paths);
        let take = Box::new(move |from: &mut dyn Read| {
            let mut text = Vec::new();
            from.take(limit)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            // After the last NUL there is nothing, or an incomplete answer.
            let end = text.iter().rposition(|byte| *byte == 0).unwrap_or(0);
            let answers = text.get(..end).unwrap_or_default().split(|byte| *byte == 0);
            let answers = paths.iter().zip(answers);
            Ok(answers
                .filter_map(|(path, answer)| Some((path.clone(), meaning(answer)?)))
                .collect())
        });
        let reply = call(&self.shell, script::ODD_SUMS, &nonce()?, &[&workspace, &id], feed, take).await?;
        reply.ok("read its files").map(|((), answers)| answers)
    }
}
