//! How long an agent waits for what. All in one place, so that tests can be quick.

use std::time::Duration;

/// The time limits of an agent.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often it checks what can't be waited for: processes, the clock, its own sockets.
    pub tick: Duration,
    /// After this long without a stream, it drops the link.
    pub idle_link: Duration,
    /// After this long without a stream and a docked shell, it ends.
    pub idle_agent: Duration,
    /// The same, if there were only brief calls.
    pub idle_brief: Duration,
    /// How long a link may take to be made, without the time that the user takes to answer.
    pub connect: Duration,
    /// How long the user may take to answer; sshd waits for two minutes by default (`LoginGraceTime`).
    pub answer: Duration,
    /// If a stream is not open after this long, the link is checked.
    pub open: Duration,
    /// How long a stream may take to open on a link that works: the dock may be busy.
    pub open_at_most: Duration,
    /// How long a sign of life may take.
    pub check: Duration,
    /// The first pause before a link is tried again; each next one is twice as long.
    pub first_pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
    /// How long a failure is the answer to later callers, too.
    pub fresh: Duration,
    /// How long if only the user can help: sshd, and programs that watch it, count failed logins.
    pub fresh_for_person: Duration,
    /// After an outage without attempts for this long, the next failure is a new outage.
    pub forgotten: Duration,
    /// If the clock goes ahead by more than this, the machine has slept.
    pub slept: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(2),
            idle_link: Duration::from_secs(5 * 60),
            idle_agent: Duration::from_secs(5 * 60),
            idle_brief: Duration::from_secs(4),
            connect: Duration::from_secs(60),
            answer: Duration::from_secs(110),
            open: Duration::from_secs(10),
            open_at_most: Duration::from_secs(90),
            check: Duration::from_secs(5),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
            fresh: Duration::from_secs(2),
            fresh_for_person: Duration::from_secs(30),
            forgotten: Duration::from_secs(60),
            slept: Duration::from_secs(10),
        }
    }
}
