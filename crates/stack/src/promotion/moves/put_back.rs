//! Tags that are put back to what they named before the promotion.

use std::time::Duration;

use dockerutils_core::error::{Class, Error};
use dockerutils_core::hint;
use registry_client::Placeholder;

use super::{MoveResult, PAUSES, TagMove, is_worth_a_try};

/// How long a write whose answer never came may still take to be done.
const SETTLING: Duration = Duration::from_millis(250);

impl TagMove {
    /// Puts the tag back to what it was, if it still is what we made of it. `is_unsure` says that it is not known whether it
    /// was written.
    pub(super) async fn restore(&self, is_unsure: bool) -> MoveResult {
        let mut pauses = PAUSES.into_iter();
        let mut attempt = PutBack {
            may_be_under_way: is_unsure,
            has_written: false,
        };
        loop {
            match self.put_back(&mut attempt).await {
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

    /// Tries it.
    async fn put_back(&self, attempt: &mut PutBack) -> Result<MoveResult, NotRestored> {
        loop {
            let is = self.registry.head(&self.repository, &self.to).await?;
            let is = is.map(|head| head.digest);
            if is.as_ref() == self.old_digest() {
                if std::mem::take(&mut attempt.may_be_under_way) {
                    tokio::time::sleep(SETTLING).await;
                    continue;
                }
                return Ok(match attempt.has_written {
                    true => MoveResult::Restored,
                    false => MoveResult::NotMoved,
                });
            }
            // What an earlier try to delete it may have left.
            let placeholder = Placeholder::of(&self.to, &self.new.digest).ok();
            let is_ours = is.as_ref().is_some_and(|is| {
                *is == self.new.digest || placeholder.is_some_and(|placeholder| is == placeholder.digest())
            });
            if !is_ours {
                return Err(NotRestored {
                    error: self.moved_meanwhile(&self.to, is.as_ref(), Some(&self.new.digest)),
                    is_worth_a_try: false,
                });
            }
            attempt.has_written = true;
            match &self.old {
                Some(old) => {
                    let put =
                        self.registry
                            .put_manifest(&self.repository, &self.to, &old.media_type, old.bytes.clone());
                    put.await?;
                }
                // The image that was promoted, its other tags and its verdicts must outlive the tag that it got.
                None => self.registry.untag(&self.repository, &self.to, &self.new).await?,
            }
            return Ok(MoveResult::Restored);
        }
    }

    /// Why it was not put back, when the user did not wait for it.
    pub(super) fn given_up(&self) -> Error {
        Error::new(
            Class::Interrupted,
            format!(
                "{} may name {} now: it was not put back before the interruption ended everything",
                self.reference(),
                self.new.digest.short()
            ),
        )
        .hint(self.by_hand())
    }

    /// How a person puts it back.
    pub(super) fn by_hand(&self) -> String {
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

/// How far putting a tag back came.
struct PutBack {
    /// A write of ours may still be done by the registry.
    may_be_under_way: bool,
    /// Something was written, also if no answer says so.
    has_written: bool,
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
            is_worth_a_try: is_worth_a_try(&error),
            error: error.into(),
        }
    }
}
