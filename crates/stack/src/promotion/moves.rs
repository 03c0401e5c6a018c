//! Moves the tags of a promotion: all of them, or none.
//!
//! No registry writes on a condition. So FROM and TO are looked at again directly before each tag is written; and when all
//! are, we look once more, after more time than that took: another promotion that looked before we wrote has written by
//! then. A tag that was written is put back when another could not be, unless somebody else moved it meanwhile. What an
//! answer does not tell, such as one that never came, is found out by looking.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dockerutils_core::error::{Error, ErrorDocument, Result};
use dockerutils_core::hint;
use dockerutils_core::output::counted;
use registry_client::{Digest, Failure, Registry, RemoteManifest, many};
use serde::Serialize;

/// How many times as long as the slowest of our own writes we wait for another writer, at least and at most this long.
const PATIENCE: u32 = 2;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// The pauses between the tries to put a tag back, where the registry is not there or fails.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A tag that is moved.
#[derive(Clone, Debug)]
pub struct TagMove {
    /// The image's name.
    pub image: String,
    pub registry: Registry,
    /// As its registry calls it.
    pub repository: String,
    /// With its registry, for messages.
    pub name: String,
    pub from: String,
    pub to: String,
    /// What the tag gets.
    pub new: RemoteManifest,
    /// What it names before; `None` if there is no such tag.
    pub old: Option<RemoteManifest>,
}

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MoveResult {
    /// It names what was promoted.
    Moved,
    /// Another run has moved it there meanwhile.
    MovedByOther,
    /// It was not touched.
    NotMoved,
    /// It was moved, and names what it named before.
    Restored,
    /// It was moved, and could not be put back.
    Left {
        #[serde(flatten)]
        why: ErrorDocument,
    },
}

/// What became of all tags, in the order of the moves.
#[derive(Debug)]
pub struct PromotionOutcome {
    pub results: Vec<MoveResult>,
    /// What is not known.
    pub notes: Vec<String>,
    /// Why nothing was promoted.
    pub error: Option<Error>,
}

/// How far a move came.
enum Attempt {
    /// It was written, which took this long.
    Moved(Duration),
    ByOther,
    /// Nothing was written.
    Untouched,
    /// Nothing was written, for this reason.
    Refused(Error),
    /// It may have been written.
    Unsure(Error),
}

/// Moves all tags, or none: then the outcome has the error. `is_stopped` is set by who wants it to end.
pub async fn carry_out(moves: &[TagMove], is_stopped: &AtomicBool) -> PromotionOutcome {
    let has_failed = AtomicBool::new(false);
    let ends = || has_failed.load(Ordering::SeqCst) || is_stopped.load(Ordering::SeqCst);
    let attempts = many(moves, |tag| async {
        let attempt = tag.attempt(&ends).await;
        if matches!(attempt, Attempt::Refused(_) | Attempt::Unsure(_)) {
            has_failed.store(true, Ordering::SeqCst);
        }
        attempt
    });
    let attempts = attempts.await;
    let mut notes = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut written = Vec::new();
    let mut failures = Vec::new();
    for (tag, attempt) in moves.iter().zip(attempts) {
        written.push(match attempt {
            Attempt::Moved(took) => {
                slowest = slowest.max(took);
                Written::Yes
            }
            Attempt::ByOther => Written::ByOther,
            Attempt::Untouched => Written::No,
            Attempt::Refused(error) => {
                failures.push((tag, error));
                Written::No
            }
            Attempt::Unsure(error) => {
                failures.push((tag, error));
                Written::Maybe
            }
        });
    }
    if failures.is_empty() && !is_stopped.load(Ordering::SeqCst) {
        tokio::time::sleep((slowest * PATIENCE).clamp(SHORTEST, LONGEST)).await;
        let looked = many(moves.iter().zip(&written), |(tag, written)| async move {
            match written {
                Written::Yes => tag.still_there().await,
                _ => Ok(()),
            }
        });
        for (tag, looked) in moves.iter().zip(looked.await) {
            match looked {
                Ok(()) => {}
                Err(LostTag::Moved(error)) => failures.push((tag, error)),
                // They were written, and the registry said so.
                Err(LostTag::Unknown(error)) => notes.push(format!(
                    "{} was moved, and could not be looked at again: {error}",
                    tag.reference()
                )),
            }
        }
    }
    let results = |restored: Vec<Option<MoveResult>>| {
        let results = written
            .iter()
            .zip(restored)
            .map(|(written, restored)| match (restored, written) {
                (Some(restored), _) => restored,
                (None, Written::Yes) => MoveResult::Moved,
                (None, Written::ByOther) => MoveResult::MovedByOther,
                (None, _) => MoveResult::NotMoved,
            });
        results.collect()
    };
    let error = match (failures.into_iter().next(), is_stopped.load(Ordering::SeqCst)) {
        (None, false) => {
            return PromotionOutcome {
                results: results(vec![None; moves.len()]),
                notes,
                error: None,
            };
        }
        (_, true) => Error::interrupted(),
        (Some((_, error)), false) => error,
    };
    let restored = many(moves.iter().zip(&written), |(tag, written)| async move {
        match written {
            Written::Yes | Written::Maybe => Some(tag.restore().await),
            Written::ByOther | Written::No => None,
        }
    });
    let results: Vec<MoveResult> = results(restored.await);
    PromotionOutcome {
        error: Some(whole(error, moves, &results)),
        results,
        notes,
    }
}

/// Whether a tag was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    Maybe,
    ByOther,
    No,
}

/// Why a tag is not, or may not be, where it was moved to.
enum LostTag {
    Moved(Error),
    Unknown(Error),
}

/// The error for all: why, and what is left behind.
fn whole(error: Error, moves: &[TagMove], results: &[MoveResult]) -> Error {
    let left: Vec<&TagMove> = moves
        .iter()
        .zip(results)
        .filter(|(_, result)| matches!(result, MoveResult::Left { .. }))
        .map(|(tag, _)| tag)
        .collect();
    let class = error.class();
    let cause = error.with_causes();
    if left.is_empty() {
        let whole = Error::new(class, format!("no image was promoted: {cause}"));
        return match error.hint_text() {
            Some(hint) => whole.hint(hint),
            None => whole,
        };
    }
    let names: Vec<String> = left.iter().map(|tag| tag.reference()).collect();
    let commands: Vec<String> = left.iter().map(|tag| tag.by_hand()).collect();
    Error::new(
        class,
        format!(
            "the promotion failed, and {} could not be put back: {}: {cause}",
            counted(left.len(), "tag"),
            names.join(", "),
        ),
    )
    .hint(commands.join("; "))
}

impl TagMove {
    /// `REPOSITORY:TAG` of the tag that is moved.
    fn reference(&self) -> String {
        format!("{}:{}", self.name, self.to)
    }

    async fn digest(&self, tag: &str) -> Result<Option<Digest>> {
        let head = self.registry.head(&self.repository, tag).await;
        Ok(head.map_err(Error::from)?.map(|head| head.digest))
    }

    fn old_digest(&self) -> Option<&Digest> {
        self.old.as_ref().map(|old| &old.digest)
    }

    async fn attempt(&self, ends: impl Fn() -> bool) -> Attempt {
        if ends() {
            return Attempt::Untouched;
        }
        let looked = tokio::try_join!(self.digest(&self.from), self.digest(&self.to));
        let (from, to) = match looked {
            Ok(looked) => looked,
            Err(error) => return Attempt::Refused(error),
        };
        if from.as_ref() != Some(&self.new.digest) {
            return Attempt::Refused(self.moved_meanwhile(&self.from, from.as_ref(), Some(&self.new.digest)));
        }
        if to.as_ref() == Some(&self.new.digest) {
            return Attempt::ByOther;
        }
        if to.as_ref() != self.old_digest() {
            return Attempt::Refused(self.moved_meanwhile(&self.to, to.as_ref(), self.old_digest()));
        }
        if ends() {
            return Attempt::Untouched;
        }
        // Another run that looked before this is written writes in about the same time.
        let began = Instant::now();
        match self.write(&self.to, &self.new).await {
            Ok(()) => Attempt::Moved(began.elapsed()),
            Err(error) => Attempt::Unsure(error),
        }
    }

    async fn write(&self, tag: &str, manifest: &RemoteManifest) -> Result<()> {
        let put = self
            .registry
            .put_manifest(&self.repository, tag, &manifest.media_type, manifest.bytes.clone());
        put.await.map(drop).map_err(Error::from)
    }

    fn moved_meanwhile(&self, tag: &str, is: Option<&Digest>, was: Option<&Digest>) -> Error {
        let says = |digest: Option<&Digest>| digest.map_or("absent".to_owned(), |digest| digest.short().to_owned());
        Error::failed(format!(
            "{}:{tag} was moved by somebody else meanwhile: it was {}, and is {}",
            self.name,
            says(was),
            says(is)
        ))
        .hint(hint!(
            "see whether another promotion runs, then: tag-stack {} {}",
            self.from,
            self.to
        ))
    }

    async fn still_there(&self) -> Result<(), LostTag> {
        match self.digest(&self.to).await {
            Ok(digest) if digest.as_ref() == Some(&self.new.digest) => Ok(()),
            Ok(digest) => Err(LostTag::Moved(self.moved_meanwhile(
                &self.to,
                digest.as_ref(),
                Some(&self.new.digest),
            ))),
            Err(error) => Err(LostTag::Unknown(error)),
        }
    }

    /// Puts the tag back to what it was, if it still is what we made of it.
    async fn restore(&self) -> MoveResult {
        let mut pauses = PAUSES.into_iter();
        let mut has_written = false;
        loop {
            match self.put_back(&mut has_written).await {
                Ok(result) => return result,
                Err(why) => match pauses.next().filter(|_| why.is_worth_a_try) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => {
                        return MoveResult::Left {
                            why: why.error.document(),
                        };
                    }
                },
            }
        }
    }

    /// Tries it. `has_written` is set when something was, also if no answer says so.
    async fn put_back(&self, has_written: &mut bool) -> Result<MoveResult, NotRestored> {
        let is = self
            .registry
            .head(&self.repository, &self.to)
            .await?
            .map(|head| head.digest);
        if is.as_ref() == self.old_digest() {
            return Ok(match has_written {
                true => MoveResult::Restored,
                false => MoveResult::NotMoved,
            });
        }
        if is.as_ref() != Some(&self.new.digest) {
            return Err(NotRestored {
                error: self.moved_meanwhile(&self.to, is.as_ref(), Some(&self.new.digest)),
                is_worth_a_try: false,
            });
        }
        *has_written = true;
        match &self.old {
            Some(old) => {
                let put = self
                    .registry
                    .put_manifest(&self.repository, &self.to, &old.media_type, old.bytes.clone());
                put.await?;
            }
            None => self.remove().await?,
        }
        Ok(MoveResult::Restored)
    }

    /// Deletes a tag that was not there before. Some registries delete the manifest with it, and all its tags: then it is
    /// written again.
    async fn remove(&self) -> Result<(), NotRestored> {
        self.registry.delete(&self.repository, &self.to).await?;
        let from = self.registry.head(&self.repository, &self.from).await?;
        if from.is_none() {
            let put = self.registry.put_manifest(
                &self.repository,
                &self.from,
                &self.new.media_type,
                self.new.bytes.clone(),
            );
            put.await?;
        }
        Ok(())
    }

    /// How a person puts it back.
    fn by_hand(&self) -> String {
        match &self.old {
            Some(old) => hint!(
                "docker buildx imagetools create --tag {} {}",
                self.reference(),
                format!("{}@{}", self.name, old.digest)
            ),
            None => hint!("delete the tag {} on the registry's own page", self.reference()),
        }
    }
}

/// Why a tag was not put back.
struct NotRestored {
    error: Error,
    /// The registry may be back in a moment.
    is_worth_a_try: bool,
}

impl From<registry_client::Error> for NotRestored {
    fn from(error: registry_client::Error) -> Self {
        Self {
            is_worth_a_try: matches!(error.failure(), Failure::Unreachable | Failure::Server(429 | 500..)),
            error: error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
