//! Waiting for an event, however slow the machine is: a test must not depend on the speed of anything.
//!
//! The harness fails the test by panicking, as `assert!` does.
#![expect(clippy::panic, reason = "a harness fails its test by panicking")]

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with something else: what has not happened by then will not
/// happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often to check for an event.
const STEP: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`]; the message says what did not happen.
pub fn until(what: impl Display, mut is_so: impl FnMut() -> bool) {
    found(what, || is_so().then_some(()));
}

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// When it finds nothing within [`PATIENCE`]; the message says what did not happen.
pub fn found<T>(what: impl Display, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Checked once more after the limit: this process may have been stopped for long.
        let is_late = Instant::now() > deadline;
        if let Some(found) = look() {
            return found;
        }
        if is_late {
            panic!("{what}: not within {} s", PATIENCE.as_secs());
        }
        thread::sleep(STEP);
    }
}
