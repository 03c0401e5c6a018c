//! When a watch looks at the dock.

use std::time::Duration;

use tokio::time::Instant;

/// How often the dock is looked at, unless looking takes long itself.
pub const POLL: Duration = Duration::from_secs(2);
/// The pause before the next listing, as a multiple of the time that the last one took: while nothing changes
/// on either side, and (`BUSY_LOOK_SHARE`) while something does.
const LOOK_SHARE: u32 = 10;
const BUSY_LOOK_SHARE: u32 = 3;
/// How long to wait at most before what did not travel is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When the dock is looked at, and when what did not travel is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// The next look.
    pub(super) poll: Instant,
    /// The next try of what failed, and how long after that the next one is.
    pub(super) again: Instant,
    pause: Duration,
}

impl Rhythm {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            poll: now + POLL,
            again: now,
            pause: POLL,
        }
    }

    /// A listing took this long. While somebody works (`is_busy`), more changes are to come.
    pub(super) fn looked(&mut self, now: Instant, took: Duration, is_busy: bool) {
        let share = if is_busy { BUSY_LOOK_SHARE } else { LOOK_SHARE };
        self.poll = now + POLL.max(took * share);
    }

    /// Somebody works: what failed may have been in the middle of that, and is tried with the next look.
    pub(super) fn is_busy(&mut self, now: Instant) {
        self.pause = POLL;
        self.again = self.again.min(now + POLL);
    }

    /// A round that was begun then has left something behind, or nothing. What fails by itself is tried less and less often.
    pub(super) fn came_out(&mut self, begun: Instant, now: Instant, has_troubles: bool) {
        if !has_troubles {
            self.pause = POLL;
        } else if begun >= self.again {
            // Rounds for something else, which come in between, put it off no longer.
            self.again = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_somebody_works_the_dock_is_looked_at_within_five_seconds_however_slow_a_look_is() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        let looks_after = |rhythm: &mut Rhythm, took, is_busy| {
            rhythm.looked(now, Duration::from_millis(took), is_busy);
            rhythm.poll - now
        };
        assert_eq!(looks_after(&mut rhythm, 20, true), POLL);
        assert_eq!(looks_after(&mut rhythm, 20, false), POLL);
        assert!(looks_after(&mut rhythm, 1_500, true) < Duration::from_secs(5));
        assert_eq!(looks_after(&mut rhythm, 1_500, false), Duration::from_secs(15));
    }

    #[test]
    fn what_fails_by_itself_is_tried_less_and_less_often_and_at_once_when_somebody_works() {
        let mut now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            rhythm.came_out(now, now, true);
            assert_eq!(rhythm.again - now, Duration::from_secs(pause));
            // A round in between changes nothing.
            let between = now + Duration::from_secs(1);
            rhythm.came_out(between, between, true);
            assert_eq!(rhythm.again - now, Duration::from_secs(pause));
            now = rhythm.again;
        }
        rhythm.came_out(now, now, true);
        rhythm.is_busy(now);
        assert_eq!(rhythm.again - now, POLL);
        now = rhythm.again;
        rhythm.came_out(now, now, true);
        assert_eq!(rhythm.again - now, POLL);
    }
}
