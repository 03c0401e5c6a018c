//! How long an agent waits for what. All in one place, so that tests can be quick.

use std::time::Duration;

/// The time limits of an agent.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often it looks at what can't be waited for: processes, the clock, its own sockets.
    pub tick: Duration,
    /// So long without a stream, it drops the link.
    pub idle_link: Duration,
    /// So long without a stream and a docked shell, it ends.
    pub idle_agent: Duration,
    /// The same, where it was only looked at.
    pub idle_brief: Duration,
    /// How long a link may take to be made, without the time that a person takes to answer.
    pub connect: Duration,
    /// How long a person may take to answer; sshd waits for two minutes by default (`LoginGraceTime`).
    pub answer: Duration,
    /// A stream that is not open by then makes the link be checked.
    pub open: Duration,
    /// How long a stream may take to open on a link that stands: the dock may have more to do.
    pub open_at_most: Duration,
    /// How long a sign of life may take.
    pub check: Duration,
    /// The first pause before a link is tried again; each next one is twice as long.
    pub first_pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
    /// How long a failure stands for an answer to who comes next.
    pub fresh: Duration,
    /// How long it stands where only a person can help: sshd, and those who watch it, count failed logins.
    pub fresh_for_person: Duration,
    /// An outage that nobody has looked at for so long is a new one.
    pub forgotten: Duration,
    /// A clock that goes ahead by more than this has slept.
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
