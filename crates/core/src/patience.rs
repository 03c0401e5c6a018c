//! How long work goes on that a cut link has stopped: one rule for transfers, builds and syncs.
//!
//! Work that can be begun again without harm waits until the other side answers, with growing pauses, about a minute and a half in
//! all, and as long again whenever something has arrived in between. A fault that only the user can
//! fix is not waited for.

use std::fmt;
use std::time::Duration;

use crate::error::{Class, Error, Result};

/// The number of tries, unless something arrives in between.
const TRIES: usize = 10;
/// The pause before the first new try; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long a command waits, before it has begun, for a dock that fell silent.
pub const LONGEST: Duration = Duration::from_secs(90);

/// The patience of one piece of work.
#[derive(Clone, Debug)]
pub struct Patience {
    cuts: usize,
    pause: Duration,
    first: Duration,
    longest: Duration,
}

/// News about a link that was cut; displayed, the sentence for the user.
#[derive(Clone, Copy, Debug)]
pub enum CutNews<'a> {
    /// Why it was cut; the work is tried again.
    TryingAgain(&'a Error),
    /// The seconds that it is still waited for.
    Waiting(u64),
}

/// Why patience has ended.
#[derive(Debug)]
pub struct Exhausted {
    /// How the link was lost.
    pub lost: Error,
    /// What the other side says in place of what it was asked for; `None` where it does not answer.
    pub refused: Option<Error>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::with(FIRST_PAUSE, LONGEST_PAUSE)
    }
}

impl fmt::Display for CutNews<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TryingAgain(error) => write!(f, "{}; trying again", error.with_causes()),
            Self::Waiting(seconds) => write!(f, "waiting for the link: {seconds} s more, Ctrl-C ends it"),
        }
    }
}

/// Whether trying again can help: the link was cut, or the engine behind it ended.
pub fn is_worth_a_try(error: &Error) -> bool {
    error.class() == Class::Unreachable && !error.needs_person()
}

impl Patience {
    const fn with(first: Duration, longest: Duration) -> Self {
        Self {
            cuts: 0,
            pause: first,
            first,
            longest,
        }
    }

    /// Something has arrived: it is as fresh as at the beginning.
    pub fn renew(&mut self) {
        *self = Self::with(self.first, self.longest);
    }

    /// Counts a cut, and waits until `connect` succeeds. `waiting` hears how many seconds are left, before each pause.
    ///
    /// # Errors
    /// That it took too long, or that the other side answers, and refuses.
    pub async fn mended<T>(
        &mut self,
        lost: Error,
        connect: impl AsyncFnMut() -> Result<T>,
        waiting: impl FnMut(u64),
    ) -> Result<T, Box<Exhausted>> {
        self.mended_by(lost, connect, waiting, tokio::time::sleep).await
    }

    /// The same, by another clock: `sleep` waits for so long.
    async fn mended_by<T, S: Future<Output = ()>>(
        &mut self,
        lost: Error,
        mut connect: impl AsyncFnMut() -> Result<T>,
        mut waiting: impl FnMut(u64),
        mut sleep: impl FnMut(Duration) -> S,
    ) -> Result<T, Box<Exhausted>> {
        let mut refused = None;
        while self.cuts + 1 < TRIES {
            self.cuts += 1;
            waiting(self.left().as_secs().max(1));
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(self.longest);
            match connect().await {
                Ok(connected) => return Ok(connected),
                Err(error) if is_worth_a_try(&error) => {}
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        Err(Box::new(Exhausted { lost, refused }))
    }

    /// All pauses that are still to come, from this one on.
    fn left(&self) -> Duration {
        let pauses = std::iter::successors(Some(self.pause), |pause| Some((*pause * 2).min(self.longest)));
        pauses.take(TRIES - self.cuts).sum()
    }
}

/// Does what can be done again without harm until it succeeds, or patience ends. `connect` is how the other side is reached
/// again, and `say` tells the user: of the cut, and what is waited for.
///
/// # Errors
/// The work's own, and a link that stays cut.
pub async fn patiently<T>(
    work: impl AsyncFnMut() -> Result<T>,
    connect: impl AsyncFnMut() -> Result<()>,
    say: impl FnMut(CutNews<'_>),
) -> Result<T> {
    patiently_so(Patience::default(), work, connect, say, tokio::time::sleep).await
}

async fn patiently_so<T, S: Future<Output = ()>>(
    mut patience: Patience,
    mut work: impl AsyncFnMut() -> Result<T>,
    mut connect: impl AsyncFnMut() -> Result<()>,
    mut say: impl FnMut(CutNews<'_>),
    mut sleep: impl FnMut(Duration) -> S,
) -> Result<T> {
    loop {
        let error = match work().await {
            Err(error) if is_worth_a_try(&error) => error,
            result => return result,
        };
        say(CutNews::TryingAgain(&error));
        let mut is_said = false;
        let waiting = |seconds| {
            if std::mem::replace(&mut is_said, true) {
                say(CutNews::Waiting(seconds));
            }
        };
        if let Err(exhausted) = patience.mended_by(error, &mut connect, waiting, &mut sleep).await {
            let Exhausted { lost, refused } = *exhausted;
            return Err(refused
                .unwrap_or_else(|| lost.hint("run it again when the link is back: what has arrived whole is kept")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    fn cut() -> Error {
        Error::unreachable("the link was cut")
    }

    /// The same tries, in no time.
    const QUICK: Patience = Patience::with(Duration::from_micros(1), Duration::from_micros(1));

    #[test]
    fn a_cut_of_more_than_a_minute_is_waited_for_and_not_one_of_many() {
        let mut patience = Patience {
            cuts: 1,
            ..Patience::default()
        };
        assert!((70..120).contains(&patience.left().as_secs()), "{:?}", patience.left());
        patience.renew();
        assert_eq!((patience.cuts, patience.pause), (0, FIRST_PAUSE));
    }

    #[tokio::test]
    async fn a_link_that_is_dead_for_seventy_seconds_ends_neither_builds_nor_syncs_nor_transfers() {
        let back = Duration::from_secs(70);
        // A try on a dead link takes a while itself, or is refused at once.
        for a_try in [0, 2, 30].map(Duration::from_secs) {
            let clock = Cell::new(Duration::ZERO);
            let is_back = || match clock.get() >= back {
                true => Ok(()),
                false => Err(cut()),
            };
            let connect = async || {
                clock.set(clock.get() + a_try);
                is_back()
            };
            let sleep = |pause| {
                clock.set(clock.get() + pause);
                std::future::ready(())
            };
            // Builds and syncs.
            let work = async || is_back();
            patiently_so(Patience::default(), work, connect, |_| {}, sleep)
                .await
                .unwrap();
            // Transfers.
            clock.set(Duration::ZERO);
            let mended = Patience::default().mended_by(cut(), connect, |_| {}, sleep).await;
            assert!(mended.is_ok(), "{a_try:?}");
        }
    }

    #[tokio::test]
    async fn work_goes_on_after_a_cut_and_what_is_waited_for_is_said() {
        let (mut tries, mut cuts, mut said) = (0, 0, Vec::new());
        let done = patiently_so(
            QUICK,
            async || {
                tries += 1;
                if tries == 1 { Err(cut()) } else { Ok(tries) }
            },
            async || {
                cuts += 1;
                if cuts == 3 { Ok(()) } else { Err(cut()) }
            },
            |news| said.push((matches!(news, CutNews::TryingAgain(_)), news.to_string())),
            sleep,
        );
        assert_eq!(done.await.unwrap(), 2);
        // The first pause is too short for words.
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], (true, "the link was cut; trying again".to_owned()));
        assert!(
            !said[1].0 && said[1].1.starts_with("waiting for the link: "),
            "{said:?}"
        );
    }

    #[tokio::test]
    async fn it_has_an_end_and_says_how_to_go_on() {
        let work = async || Err::<(), _>(cut());
        let error = patiently_so(QUICK, work, async || Err(cut()), |_| {}, sleep)
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::Unreachable);
        assert!(error.hint_text().unwrap().starts_with("run it again"));
        // A link that comes back and breaks each time ends, too.
        let mut tries = 0;
        let work = async || {
            tries += 1;
            Err::<(), _>(cut())
        };
        patiently_so(QUICK, work, async || Ok(()), |_| {}, sleep)
            .await
            .unwrap_err();
        assert_eq!(tries, TRIES);
    }

    #[tokio::test]
    async fn what_waiting_does_not_mend_is_not_waited_for() {
        for error in [
            || Error::failed("no such image"),
            || Error::unreachable("the host key has changed").for_person(),
        ] {
            let mut connects = 0;
            let work = async || Err::<(), _>(error());
            let connect = async || {
                connects += 1;
                Ok(())
            };
            let failed = patiently_so(QUICK, work, connect, |_| {}, sleep).await.unwrap_err();
            assert_eq!((failed.to_string(), connects), (error().to_string(), 0));
            let work = async || Err::<(), _>(cut());
            let connect = async || {
                connects += 1;
                Err(error())
            };
            let refused = patiently_so(QUICK, work, connect, |_| {}, sleep).await.unwrap_err();
            assert_eq!((refused.to_string(), connects), (error().to_string(), 1));
        }
    }
}
