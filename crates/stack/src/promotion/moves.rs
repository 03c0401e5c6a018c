//! Moves the tags of a promotion: all of them, or none.
//!
//! No registry writes on a condition. So FROM and TO are looked at again directly before each tag is written; and when all
//! are, we look once more, after more time than that took: another promotion that looked before we wrote has written by
//! then. A tag that was written is put back when another could not be, unless somebody else moved it meanwhile. What an
//! answer does not tell, such as one that never came, is found out by looking.
//!
//! Another run may promote the same to the same tag. A tag that it has moved counts, and is looked at again at the end,
//! too: that run may fail, and put it back. And who fails looks first whether all tags name their digests all the same:
//! then that run has done it, and counts on what we wrote, so nothing is put back. What is left is a run that puts a tag
//! back after the last look of another: it must take more than [`PATIENCE`] times as long between its own look and
//! its writing as the other one took to write.
//!
//! An interruption ends what is under way; whatever may have been written is then looked at, and put back.

mod put_back;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dockerutils_core::error::{Error, ErrorDocument, Result};
use dockerutils_core::hint;
use dockerutils_core::output::counted;
use registry_client::{Digest, Failure, Registry, RemoteManifest, many};
use serde::Serialize;

use super::interruption::Interruption;

/// How many times as long as the slowest of our own writes we wait for another writer, at least and at most this long.
const PATIENCE: u32 = 2;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// The pauses between the tries to look at a tag or to put it back, where the registry is not there or fails.
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
    /// What it names before; `None` if there is no such tag. If it is what the tag gets, it is only looked at.
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

/// Whether a tag was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// By us.
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

/// Moves all tags, or none: then the outcome has the error.
pub async fn carry_out(moves: &[TagMove], interruption: &Interruption) -> PromotionOutcome {
    let has_failed = AtomicBool::new(false);
    let attempts = many(moves, |tag| async {
        let attempt = tag.attempt(&has_failed, interruption).await;
        if matches!(attempt, Attempt::Refused(_) | Attempt::Unsure(_)) {
            has_failed.store(true, Ordering::SeqCst);
        }
        attempt
    });
    let mut promotion = Promotion::new(moves, attempts.await);
    if promotion.failure.is_none() {
        tokio::select! {
            () = promotion.look_again() => {}
            () = interruption.made() => {}
        }
    }
    let error = match (promotion.failure.take(), interruption.is_made()) {
        (None, false) => return promotion.done(),
        (_, true) => Error::interrupted(),
        (Some(error), false) => error,
    };
    let is_complete = tokio::select! {
        is_complete = promotion.is_completed_by_others() => is_complete,
        () = interruption.is_final() => false,
    };
    if is_complete {
        promotion.notes.push(format!(
            "another run has moved the same tags meanwhile: all of them name what was to be promoted, and none is put \
             back ({})",
            error.with_causes()
        ));
        return promotion.done();
    }
    promotion.undone(error, interruption).await
}

/// A promotion whose tags were written, as far as they could be.
struct Promotion<'m> {
    moves: &'m [TagMove],
    /// In the order of the moves.
    written: Vec<Written>,
    /// The slowest of our own writes.
    slowest: Duration,
    notes: Vec<String>,
    /// The first one.
    failure: Option<Error>,
}

impl<'m> Promotion<'m> {
    fn new(moves: &'m [TagMove], attempts: Vec<Attempt>) -> Self {
        let mut promotion = Self {
            moves,
            written: Vec::new(),
            slowest: Duration::ZERO,
            notes: Vec::new(),
            failure: None,
        };
        for attempt in attempts {
            let (written, failure) = match attempt {
                Attempt::Moved(took) => {
                    promotion.slowest = promotion.slowest.max(took);
                    (Written::Yes, None)
                }
                Attempt::ByOther => (Written::ByOther, None),
                Attempt::Untouched => (Written::No, None),
                Attempt::Refused(error) => (Written::No, Some(error)),
                Attempt::Unsure(error) => (Written::Maybe, Some(error)),
            };
            promotion.written.push(written);
            promotion.failure = promotion.failure.or(failure);
        }
        promotion
    }

    /// Each move, and whether it was written.
    fn each(&self) -> impl Iterator<Item = (&'m TagMove, Written)> {
        self.moves.iter().zip(self.written.iter().copied())
    }

    /// Lets another run that looked before we wrote write.
    async fn wait(&self) {
        tokio::time::sleep((self.slowest * PATIENCE).clamp(SHORTEST, LONGEST)).await;
    }

    /// Looks whether all tags are where they were moved to.
    async fn look_again(&mut self) {
        self.wait().await;
        let looked = many(self.each(), |(tag, written)| async move {
            (tag, written, tag.still_there().await)
        });
        let looked = looked.await;
        for (tag, written, looked) in looked {
            match (looked, written) {
                (Ok(()), _) => {}
                // We wrote it, and the registry said so.
                (Err(LostTag::Unknown(error)), Written::Yes) => self.notes.push(format!(
                    "{} was moved, and could not be looked at again: {error}",
                    tag.reference()
                )),
                (Err(LostTag::Moved(error) | LostTag::Unknown(error)), _) => {
                    self.failure.get_or_insert(error);
                }
            }
        }
    }

    /// Whether all tags name what was to be promoted, though we did not write them all: another run did, and its promotion
    /// is done.
    async fn is_completed_by_others(&self) -> bool {
        let is_by_other = |(tag, written): (&TagMove, Written)| {
            let was_there = tag.old_digest() == Some(&tag.new.digest);
            matches!(written, Written::ByOther | Written::No) && !was_there
        };
        if !self.each().any(is_by_other) || !self.is_complete().await {
            return false;
        }
        // It may just put back what it wrote.
        self.wait().await;
        self.is_complete().await
    }

    async fn is_complete(&self) -> bool {
        let looked = many(self.moves, |tag| tag.digest(&tag.to)).await;
        let mut looked = looked.into_iter().zip(self.moves);
        looked.all(|(digest, tag)| digest.ok().flatten().is_some_and(|digest| digest == tag.new.digest))
    }

    /// All tags are moved.
    fn done(self) -> PromotionOutcome {
        let results = self.written.iter().map(|written| match written {
            Written::Yes | Written::Maybe => MoveResult::Moved,
            Written::ByOther | Written::No => MoveResult::MovedByOther,
        });
        PromotionOutcome {
            results: results.collect(),
            notes: self.notes,
            error: None,
        }
    }

    /// Puts back whatever was written, or may have been.
    async fn undone(self, error: Error, interruption: &Interruption) -> PromotionOutcome {
        let results = many(self.each(), |(tag, written)| async move {
            // What another run made of a tag is its business, and may be another thing by now.
            if matches!(written, Written::ByOther | Written::No) {
                return MoveResult::NotMoved;
            }
            tokio::select! {
                result = tag.restore(written == Written::Maybe) => result,
                () = interruption.is_final() => MoveResult::Left {
                    why: tag.given_up().document(),
                },
            }
        });
        let results: Vec<MoveResult> = results.await;
        PromotionOutcome {
            error: Some(whole(error, self.moves, &results)),
            results,
            notes: self.notes,
        }
    }
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

    async fn attempt(&self, has_failed: &AtomicBool, interruption: &Interruption) -> Attempt {
        let ends = || has_failed.load(Ordering::SeqCst) || interruption.is_made();
        if ends() {
            return Attempt::Untouched;
        }
        let looked = tokio::select! {
            looked = async { tokio::try_join!(self.digest(&self.from), self.digest(&self.to)) } => looked,
            () = interruption.made() => return Attempt::Untouched,
        };
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
        let written = tokio::select! {
            written = self.write(&self.to, &self.new) => written,
            () = interruption.made() => Err(Error::interrupted()),
        };
        match written {
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
        let mut pauses = PAUSES.into_iter();
        loop {
            let head = self.registry.head(&self.repository, &self.to).await;
            let error = match head.map(|head| head.map(|head| head.digest)) {
                Ok(digest) if digest.as_ref() == Some(&self.new.digest) => return Ok(()),
                Ok(digest) => {
                    let error = self.moved_meanwhile(&self.to, digest.as_ref(), Some(&self.new.digest));
                    return Err(LostTag::Moved(error));
                }
                Err(error) => error,
            };
            match pauses.next().filter(|_| is_worth_a_try(&error)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(LostTag::Unknown(error.into())),
            }
        }
    }
}

/// Whether the registry may be back in a moment.
fn is_worth_a_try(error: &registry_client::Error) -> bool {
    matches!(error.failure(), Failure::Unreachable | Failure::Server(429 | 500..))
}

#[cfg(test)]
mod tests;
