//! What follows a try of a transfer that failed: one policy, as a value.

use super::send::TransferFailure;
use crate::error::{Error, Result};
use crate::patience::{Exhausted, Patience};

/// How many plans are made of one image because what is at the destination keeps changing.
const PLANS: usize = 3;

/// The tries of one image.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    changes: usize,
    is_careful: bool,
    patience: Patience,
}

/// What to do after a failed try.
#[derive(Debug)]
pub enum NextTry {
    /// Try again at once.
    Now,
    /// Try again when the link, which was lost so, is back.
    WhenBack(Error),
    /// Give up: it would fail again.
    Never(Error),
}

impl Retries {
    /// Whether the next try verifies what the others took for granted.
    pub const fn is_careful(&self) -> bool {
        self.is_careful
    }

    /// Decides after a failure. A layer that arrived in that try makes patience new.
    pub fn after(&mut self, failure: TransferFailure, has_progress: bool) -> NextTry {
        if has_progress {
            self.patience.renew();
        }
        match failure {
            TransferFailure::Final(error) => NextTry::Never(error),
            TransferFailure::Lost(error) => NextTry::WhenBack(error),
            TransferFailure::Misread(error) if self.is_careful => NextTry::Never(error),
            TransferFailure::Misread(_) => {
                self.is_careful = true;
                NextTry::Now
            }
            TransferFailure::Changed(error) => {
                self.changes += 1;
                self.is_careful = true;
                match self.changes < PLANS {
                    true => NextTry::Now,
                    false => NextTry::Never(error),
                }
            }
        }
    }

    /// Waits until `connect` succeeds; `waiting` hears before each pause how many seconds are left.
    ///
    /// # Errors
    /// That it took too long, or that the other side answers, and refuses.
    pub async fn reconnect<T>(
        &mut self,
        lost: Error,
        connect: impl AsyncFnMut() -> Result<T>,
        waiting: impl FnMut(u64),
    ) -> Result<T, Box<Exhausted>> {
        self.patience.mended(lost, connect, waiting).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Error {
        Error::failed("it failed")
    }

    #[test]
    fn what_changed_is_planned_again_with_care_and_not_for_ever() {
        let mut retries = Retries::default();
        assert!(!retries.is_careful());
        for _ in 1..PLANS {
            assert!(matches!(
                retries.after(TransferFailure::Changed(failed()), false),
                NextTry::Now
            ));
            assert!(retries.is_careful());
        }
        assert!(matches!(
            retries.after(TransferFailure::Changed(failed()), false),
            NextTry::Never(_)
        ));
    }

    #[test]
    fn what_was_misread_is_read_once_more_with_care() {
        let mut retries = Retries::default();
        let mut misread = || retries.after(TransferFailure::Misread(failed()), false);
        assert!(matches!(misread(), NextTry::Now));
        assert!(matches!(misread(), NextTry::Never(_)));
    }

    #[test]
    fn a_lost_link_is_waited_for_and_a_refusal_is_not() {
        let mut retries = Retries::default();
        let lost = TransferFailure::Lost(Error::unreachable("cut"));
        assert!(matches!(retries.after(lost, true), NextTry::WhenBack(_)));
        assert!(matches!(
            retries.after(TransferFailure::Final(failed()), false),
            NextTry::Never(_)
        ));
    }
}
